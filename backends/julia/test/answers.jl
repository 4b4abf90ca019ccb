using .Backend: Answers, Signature, Tensor, WrongAnswer, answers_of, json_value, output_names, predictions_of, tensor_outputs
using Dates: CompoundPeriod, Date, DateTime, Day, Hour, Millisecond, Minute, Month, Time
using .Backend.StrictJSON: encode, parse_json
using SparseArrays: sparse

output_tensor(name, type = "FP64") = Tensor(name, type, [-1])
const NO_OUTPUTS, ONE_OUTPUT = Signature([], []), Signature([], [output_tensor("y")])
const PRICE_SOLD = Signature([], [output_tensor("price"), output_tensor("sold", "BOOL")])

"The predictions of `/predict`, as a caller reads them."
predicted(returned, signature = NO_OUTPUTS; rows = 2) = parse_json(encode(predictions_of(answers_of(returned, rows, signature))))
complaint_about(returned, signature = NO_OUTPUTS; rows = 2) =
    try
        predicted(returned, signature, rows = rows)
        ""
    catch error
        error isa WrongAnswer || rethrow()
        error.message
    end
infer(returned, signature = NO_OUTPUTS; rows = 2, options...) =
    [Dict(part) for part in tensor_outputs(answers_of(returned, rows, signature), signature; options...)]

@enum Cultivar barolo nebbiolo
struct Wrapped
    label::String
end
struct ZonedDateTime  # as TimeZones.jl has it
    utc_datetime::DateTime
end

@testset "rows first, whatever type holds them" begin
    for returned in
        ([1.5, 2.5], view([0.0, 1.5, 2.5], 2:3), (x for x in (1.5, 2.5)), Any[1.5, 2.5], Float32[1.5, 2.5], sparse([1.5, 2.5]))
        @test predicted(returned) == [1.5, 2.5]
    end
    @test predicted(1:2) == [1, 2]
    for returned in ([1 2; 3 4], sparse([1 2; 3 4]), [[1, 2], [3, 4]], [(1, 2), (3, 4)], transpose([1 3; 2 4]))
        @test predicted(returned) == [[1, 2], [3, 4]]
    end
    @test predicted(reshape(1:8, 2, 2, 2)) == [[[1, 5], [3, 7]], [[2, 6], [4, 8]]]
    @test predicted([1 2]; rows = 1) == [[1, 2]]
end

@testset "what has no row for each row given is refused" begin
    for (returned, words) in (
        1.5 => "a Float64 instead of",
        "ab" => "a String instead of",
        nothing => "a Nothing instead of",
        Set([1, 2]) => "a Set",
        [1.5] => "1 predictions for 2 rows",
        [1 2] => "1 predictions for 2 rows",
        (1, 2) => "instead of",
        fill(1.0) => "instead of",
        [1, 2im] => "Complex",
        [Month(1), Month(2)] => "no form in JSON",
        [(a = 1,), (b = 2,)] => "differing names",
    )
        @test occursin(words, complaint_about(returned))
    end
end

@testset "several outputs go by name" begin
    wanted = [Dict("price" => 1.5, "sold" => true), Dict("price" => 2.5, "sold" => false)]
    by_name = (sold = [true, false], price = [1.5, 2.5])
    rows = [(price = 1.5, sold = true), (price = 2.5, sold = false)]
    parts = Dict("price" => [1.5, 2.5], "sold" => [true, false])
    for returned in (by_name, rows, parts, [Dict("price" => 1.5, "sold" => true), Dict("price" => 2.5, "sold" => false)])
        @test predicted(returned, PRICE_SOLD) == wanted
        @test predicted(returned) == wanted
    end
    @test predicted(Any[1.5 true; 2.5 false], PRICE_SOLD) == wanted
    @test predicted((only = [1, 2],), ONE_OUTPUT) == [1, 2] == predicted((only = [1, 2],))
    for returned in ((price = [1, 2],), (price = [1, 2], cost = [1, 2]), [1, 2], [1 2 3; 4 5 6], [[1, 2], [3]])
        @test !isempty(complaint_about(returned, PRICE_SOLD))
    end
    @test occursin("the signature's outputs are y", complaint_about(by_name, ONE_OUTPUT))
    @test occursin("1 predictions for 2 rows", complaint_about((price = [1.5], sold = [true]), PRICE_SOLD))
end

@testset "values have one form" begin
    for (value, form) in (
        missing => "null",
        nothing => "null",
        NaN => "null",
        Inf => "null",
        1 // 2 => "0.5",
        big(2)^70 => string(big(2)^70),
        :red => "\"red\"",
        'c' => "\"c\"",
        barolo => "\"barolo\"",
        SubString("abc", 2) => "\"bc\"",
        Date(2026, 11, 29) => "\"2026-11-29\"",
        DateTime(2026, 11, 29, 10) => "\"2026-11-29T10:00:00\"",
        DateTime(2026, 11, 29, 10, 0, 0, 500) => "\"2026-11-29T10:00:00.5\"",
        Time(10, 30) => "\"10:30:00\"",
        ZonedDateTime(DateTime(2026, 11, 29, 10)) => "\"2026-11-29T10:00:00Z\"",
        Minute(2) => "120.0",
        Millisecond(1500) => "1.5",
        Day(1) => "86400.0",
        CompoundPeriod(Hour(1), Minute(1)) => "3660.0",
        typemax(Int64) => "9223372036854775807",
        (1, "a") => "[1,\"a\"]",
        Dict("a" => missing) => "{\"a\":null}",
    )
        @test String(encode(json_value(value))) == form
    end
    @test_throws WrongAnswer json_value(Wrapped("x"))
end

@testset "package extensions unwrap values and tables" begin
    before = Backend.UNWRAP[], Backend.COLUMNS_OF_TABLE[]
    Backend.UNWRAP[] = value -> value isa Wrapped ? value.label : value
    Backend.COLUMNS_OF_TABLE[] = table -> table isa Wrapped ? (y = [1, 2],) : nothing
    @test predicted([Wrapped("red"), Wrapped("green")]) == ["red", "green"]
    @test predicted(Wrapped("")) == [1, 2]
    Backend.UNWRAP[], Backend.COLUMNS_OF_TABLE[] = before
end

@testset "tensors" begin
    tensor(returned, signature = ONE_OUTPUT; rows = length(returned)) = only(infer(returned, signature, rows = rows))
    @test tensor([1.5, 2.0]) == Dict("name" => "y", "shape" => [2], "datatype" => "FP64", "data" => [1.5, 2.0])
    @test (tensor([1 2; 3 4], rows = 2)["shape"], tensor([1 2; 3 4], rows = 2)["data"]) == ([2, 2], [1, 2, 3, 4])
    cube = tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    @test (cube["shape"], cube["data"]) == ([2, 2, 2], 1:8)
    ragged = tensor([[1], [2, 3]])
    @test (ragged["shape"], ragged["data"], ragged["datatype"]) == ([2], ["[1]", "[2,3]"], "BYTES")
    @test tensor([Dict("a" => Dict("b" => 1))])["data"] == ["{\"b\":1}"]
    @test tensor(["a"])["datatype"] == "BYTES"
    own(values) = tensor(values, NO_OUTPUTS)["datatype"]
    @test map(own, ([true], [1], [1.5], Any[], [missing, 1], [typemax(UInt64)], Any["a", 1], [big(2)^70])) ==
          ("BOOL", "INT64", "FP64", "FP64", "INT64", "UINT64", "BYTES", "FP64")
    whole = tensor([2.0, missing, NaN], Signature([], [output_tensor("n", "INT8")]))
    @test whole["datatype"] == "INT8" && isequal(whole["data"], [2, missing, missing])
    @test tensor([300], Signature([], [output_tensor("n", "INT8")]))["datatype"] == "INT64"
    late = [fill(1, 200); 300]
    @test tensor(late, Signature([], [output_tensor("n", "INT8")]))["datatype"] == "INT64"
    two = infer((price = [1.5, 2.5], sold = [true, false]), PRICE_SOLD)
    @test [part["name"] for part in two] == ["price", "sold"] && two[2]["datatype"] == "BOOL"
    @test [part["name"] for part in infer((price = [1.5, 2.5], sold = [true, false]), PRICE_SOLD, wanted = ["sold"])] == ["sold"]
    @test only(infer([1, 2]))["name"] == "prediction"
    probabilities = only(infer([1.0 0.0; 0.0 1.0], Signature([], [output_tensor("class", "INT64")]), is_declared = false))
    @test probabilities["datatype"] == "FP64"
end
