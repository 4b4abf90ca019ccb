# Requests are read straight into typed columns. What that must come to is said here once more, by plain values of JSON.

using .Backend: Problem, Signature, Tensor, checked, explain_row, fault, read_instances, read_tensors, table, value_of
using .Backend.StrictJSON: JSONError, Reader, encode, next_byte, parse_json, skip_value
using Random: MersenneTwister, shuffle

const READ = Signature(
    [
        Tensor("age", "INT8", [-1]),
        Tensor("id", "UINT64", [-1]),
        Tensor("ratio", "FP32", [-1]),
        Tensor("is_member", "BOOL", [-1]),
        Tensor("town", "BYTES", [-1]),
        Tensor("colour", "BYTES", [-1], Any["red", "green"]),
        Tensor("grade", "INT16", [-1], Any[1, 2]),
        Tensor("place", "FP64", [-1, 2]),
    ],
    [],
)

"Columns from rows that were parsed as any JSON, or the text of the Problem."
function read_plainly(text)
    body = try
        parse_json(text)
    catch error
        error isa JSONError || rethrow()
        return "not JSON"
    end
    problems = String[]
    for (index, row) in enumerate(body["instances"])
        length(problems) >= 11 || explain_row(row, READ.inputs, "instances[$(index - 1)]", problems)
    end
    isempty(problems) || return Backend.invalid_instances(problems).detail
    return [
        [checked(value_of(row, input, place), input, 2, () -> "", String[]) for row in body["instances"]] for
        (place, input) in enumerate(READ.inputs)
    ]
end

function read_fast(read_one, text, signature)
    try
        return collect(Any, values(table(read_one(text, signature).rows)))
    catch error
        error isa Problem || rethrow()
        return error.status == 400 ? "not JSON" : error.detail
    end
end

const FITTING = (
    ["1", "-128", "127", "1.0", "1e2", "null", "-0", "12e-1e", "0.0"],
    ["1", "18446744073709551615", "9007199254740992.0", "null", "0", "-0", "-0.0"],
    ["1", "1.5", "-2.5e-3", "3.4028234663852886e38", "123456789012345678901234567890", "0.1234567890123456789", "1e-400", "null"],
    ["true", "false", "null"],
    ["\"Ulm\"", "\"\"", "\"K\\u00f6ln\"", "\"Köln \\\"\\n\"", "null"],
    ["\"red\"", "\"green\"", "\"gre\\u0065n\"", "null"],
    ["1", "2", "2.0", "null"],
    ["[1,2]", "[1.5,null]", " [ 1e3 , 2 ] ", "null"],
)
const STRANGE = [
    "\"x\"",
    "1.5",
    "128",
    "-1",
    "1e400",
    "01",
    "tru",
    "[]",
    "[1]",
    "{}",
    "\"\\ud800\"",
    "3",
    "1e39",
    "9" ^ 30,
    "\"\xff\"",
    "[[1],2]",
    "{\"a\":[]}",
]

"A row by name or in order, most likely a good one."
function random_row(random)
    cells = [rand(random) < 0.02 ? rand(random, STRANGE) : rand(random, filter(!isequal("12e-1e"), fitting)) for fitting in FITTING]
    rand(random) < 0.5 && return "[" * join(cells, rand(random, (",", " , "))) * "]"
    fields = ["\"$(input.name)\":$cell" for (input, cell) in zip(READ.inputs, cells)]
    rand(random) < 0.3 && (fields = shuffle(random, fields))
    rand(random) < 0.05 && push!(fields, rand(random, fields), rand(random, ("\"age\":\"no\"", "\"age\":3", "\"nobody\":1")))
    rand(random) < 0.02 && pop!(fields)
    return "{" * join(fields, ",") * "}"
end

@testset "rows are read as their JSON says, and refused with the same words" begin
    random, refused = MersenneTwister(20), 0
    for _ in 1:800
        text = "{\"instances\":[" * join((random_row(random) for _ in 1:rand(random, 0:6)), ",") * "]}"
        expected, got = read_plainly(text), read_fast(read_instances, text, READ)
        refused += got isa String
        isequal(got, expected) || println(text)
        @test isequal(got, expected)
    end
    @test 50 < refused < 750
end

@testset "damaged bodies are JSON for both readers or for neither" begin
    random = MersenneTwister(7)
    whole = Vector{UInt8}("{\"instances\":[" * join((random_row(MersenneTwister(3)) for _ in 1:3), ",") * "]}")
    for _ in 1:1500
        bytes = copy(whole)
        for _ in 1:rand(random, 1:3)
            at = rand(random, eachindex(bytes))
            rand(random) < 0.5 ? (bytes[at] = rand(random, codeunits("[]{},:\"\\ 0-.eatn\x00\xff\xc3"))) : deleteat!(bytes, at)
        end
        text = String(bytes)
        is_json(read) =
            try
                read()
                true
            catch error
                error isa Union{JSONError,Problem} || rethrow()
                error isa Problem && error.status == 422
            end
        expected = is_json(() -> parse_json(text))
        @test is_json(() -> read_instances(text, READ)) == expected
        @test is_json(() -> (reader = Reader(text); skip_value(reader); Backend.read_end(reader))) == expected
    end
end

@testset "tensors of any datatype are read as their values say" begin
    cases = [
        "1",
        "2.0",
        "-3",
        "1.5",
        "300",
        "70000",
        "3e9",
        "9007199254740993",
        "18446744073709551615",
        "1e300",
        "true",
        "\"a\"",
        "null",
    ]
    datatypes = ["FP16", "FP32", "FP64", "INT8", "INT64", "UINT8", "UINT64", "BOOL", "BYTES"]
    for own in datatypes, datatype in datatypes, value in cases
        signature = Signature([Tensor("v", own, [-1])], [])
        text = "{\"inputs\":[{\"name\":\"v\",\"shape\":[2],\"datatype\":\"$datatype\",\"data\":[null,$value]}]}"
        behind = "{\"inputs\":[{\"data\":[[null],[$value]],\"name\":\"v\",\"shape\":[2,1],\"datatype\":\"$datatype\"}]}"
        json, problems = parse_json(value), String[]
        wrong = json === nothing ? "" : fault(json, datatype)
        found = checked(json, signature.inputs[1], 2, () -> "v[1]", problems)
        expected = !isempty(wrong) ? "inputs[0].data[1]: $wrong" : !isempty(problems) ? only(problems) : [Any[missing, found]]
        @test isequal(read_fast(read_tensors, text, signature), expected)
        @test isequal(read_fast(read_tensors, behind, signature), expected)
    end
end

@testset "a name that stands twice in one object is refused, wherever it is" begin
    one = Signature([Tensor("v", "FP64", [-1])], [])
    tensor = "\"name\":\"v\",\"shape\":[1],\"datatype\":\"FP64\",\"data\":[2.5]"
    @test read_fast(read_tensors, "{\"inputs\":[{$tensor}]}", one) == [[2.5]]
    for more in ("\"name\":\"v\"", "\"data\":[2.5]", "\"x\":[{\"a\":1,\"a\":1}]", "\"parameters\":{\"a\":1,\"\\u0061\":2}")
        @test read_fast(read_tensors, "{\"inputs\":[{$tensor,$more}]}", one) == "not JSON"
    end
    @test read_fast(read_tensors, "{\"inputs\":[{$tensor}],\"inputs\":[{$tensor}]}", one) == "not JSON"
    for text in (
        "{\"instances\":[{\"v\":1,\"v\":1}]}",
        "{\"instances\":[[1]],\"instances\":[[1]]}",
        "{\"instances\":[[1],$(join(fill("[true]", 20), ",")),{\"v\":1,\"v\":1}]}",
        "{\"instances\":[[1]],\"parameters\":{\"p\":[{\"\":1,\"\":1}]}}",
    )
        @test read_fast(read_instances, text, one) == "not JSON"
    end
    @test parse_json("{\"a\":1,\"a\":2}", is_unique = false) == Dict("a" => 2)
end

@testset "problems of tensors come in the order of the rows" begin
    two = Signature([Tensor("a", "INT8", [-1]), Tensor("b", "INT8", [-1])], [])
    tensor(name, data) = "{\"name\":\"$name\",\"shape\":[2],\"datatype\":\"INT64\",\"data\":$data}"
    @test read_fast(read_tensors, "{\"inputs\":[$(tensor("b", "[300,1]")),$(tensor("a", "[1,301]"))]}", two) ==
          "b[0]: expected INT8, got 300, which does not fit; a[1]: expected INT8, got 301, which does not fit"
    deep = Signature([Tensor("v", "INT8", [-1, 2, 2])], [])
    @test read_fast(
        read_tensors,
        "{\"inputs\":[{\"name\":\"v\",\"shape\":[1,2,2],\"datatype\":\"INT64\",\"data\":[1,2,300,4]}]}",
        deep,
    ) == "v[0][1][0]: expected INT8, got 300, which does not fit"
end

@testset "what every value passes is inferred" begin
    reader, signature = Reader("[1.5]"), Signature([Tensor("a", "FP64", [-1])], [])
    for datatype in ("FP64", "INT32", "UINT64", "BOOL", "BYTES")
        column = Backend.column_for(Tensor("a", datatype, [-1]))
        @inferred Backend.read_cell!(Reader("null"), column)
        @inferred Backend.accept!(column, 1.5)
        @inferred Backend.accept!(column, Int64(1))
        @inferred Backend.finished(column) isa AbstractVector
    end
    @inferred Backend.read_number(Reader("1.5e3"))
    @inferred Backend.float_of(reader, Backend.read_number(Reader("1")))
    @inferred next_byte(reader)
    @inferred skip_value(reader)
    @inferred Backend.read_any!(Reader("1"), Backend.column_for(Tensor("a", "FP64", [-1])))
    writer = Backend.StrictJSON.Writer(UInt8[], 0, 0)
    @inferred Backend.StrictJSON.write_items(writer, [1.5])
    @inferred Backend.StrictJSON.write_items(writer, ["a"])
end

"The bytes that it takes to read a text, once everything is compiled."
function bytes_taken(text, signature)
    read_instances(text, signature)
    return @allocated read_instances(text, signature)
end

@testset "a row costs its values, and no more" begin
    numbers = Signature([Tensor("a", "FP64", [-1]), Tensor("n", "INT32", [-1])], [])
    rows(row, count) = "{\"instances\":[" * join(Iterators.repeated(row, count), ",") * "]}"
    for row in ("[1.5,2]", "{\"a\":1.5,\"n\":2}", "[0.1234567890123456,2.0]")
        each = (bytes_taken(rows(row, 20_000), numbers) - bytes_taken(rows(row, 10_000), numbers)) / 10_000
        @test each < 3 * 2 * sizeof(Float64)
    end
    texts = Signature([Tensor("a", "BYTES", [-1]), Tensor("b", "BYTES", [-1], Any["red"])], [])
    each = (bytes_taken(rows("[\"Ulm\",\"red\"]", 20_000), texts) - bytes_taken(rows("[\"Ulm\",\"red\"]", 10_000), texts)) / 10_000
    @test each < 3 * 2 * sizeof(Ptr)
    # One that is wrong is explained without a copy of the others.
    wrong(count) = replace(rows("[1.5,2]", count), "[1.5,2]]" => "[1.5,\"x\"]]")
    taken(text) = (read_fast(read_instances, text, numbers); @allocated read_fast(read_instances, text, numbers))
    @test (taken(wrong(20_000)) - taken(wrong(10_000))) / 10_000 < 3 * 2 * sizeof(Float64)
    @test read_fast(read_instances, wrong(20_000), numbers) == "instances[19999][1]: expected an integer, got \"x\""
end
