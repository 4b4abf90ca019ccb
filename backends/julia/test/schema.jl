using .Backend: Problem, Sample, Signature, Tensor, read_instances, read_tensors, tensor_outputs

const MIXED = Signature(
    [
        Tensor("age", "INT8", [-1]),
        Tensor("id", "UINT64", [-1]),
        Tensor("ratio", "FP32", [-1]),
        Tensor("is_member", "BOOL", [-1]),
        Tensor("town", "BYTES", [-1]),
        Tensor("place", "FP64", [-1, 2]),
        Tensor("tags", "BYTES", [-1, -1]),
    ],
    [Tensor("score", "FP64", [-1])],
)
const GOOD = "{\"age\":3,\"id\":18446744073709551615,\"ratio\":1,\"is_member\":true,\"town\":\"Ulm\",\"place\":[1,2.5],\"tags\":[]}"

refused(read_one, text, signature = MIXED) =
    try
        read_one(text, signature)
        nothing
    catch error
        error isa Problem || rethrow()
        error
    end
said(text, signature = MIXED) = refused(read_instances, text, signature).detail

@testset "a body that is no JSON says where" begin
    problem = refused(read_instances, "{\"instances\":\n [1,,2]}")
    @test (problem.status, problem.code) == (400, "malformed-json")
    @test endswith(problem.detail, "at line 2, column 5")
    @test endswith(refused(read_instances, "").detail, "the text ends early at line 1, column 1")
    @test endswith(refused(read_instances, "{\n").detail, "line 2, column 1")
end

"The rows, each as a vector of its values."
rowwise(rows) = isempty(rows.inputs) ? rows.given : [Any[column[row] for column in rows.columns] for row in 1:length(rows)]

@testset "an instance is an object by name, or an array in order" begin
    by_name = read_instances("{\"instances\":[$GOOD]}", MIXED)
    @test rowwise(by_name.rows) == [[3, typemax(UInt64), 1.0, true, "Ulm", [1.0, 2.5], []]]
    columns = Backend.table(by_name.rows)
    @test columns isa NamedTuple && columns.ratio isa Vector{Float64} && columns.age isa Vector{Int64}
    @test columns.id isa Vector{UInt64} && columns.town == ["Ulm"] && columns.is_member isa Vector{Bool}
    in_order = "{\"instances\":[[3,0,1.5,null,\"\",[null,1],[\"a\"]]],\"parameters\":{\"a\":1}}"
    scoring = read_instances(in_order, MIXED, ["a"])
    @test isequal(rowwise(scoring.rows)[1], [3, 0, 1.5, missing, "", [missing, 1.0], ["a"]])
    @test scoring.parameters == Dict("a" => 1)
    @test isempty(read_instances("{\"instances\":[]}", MIXED).rows)
    @test Backend.table(scoring.rows).age isa Vector{Union{Missing,Int64}}
    @test Backend.table(read_instances("{\"instances\":[\"x\",1]}", Signature([], [])).rows) == ["x", 1]
end

@testset "what is wrong with an instance is said with its place" begin
    changed(name, value) = "{\"instances\":[$GOOD,$(replace(GOOD, Regex("\"$name\":(\\[[^]]*\\]|[^,}]*)") => "\"$name\":$value"))]}"
    for (name, value, words) in (
        ("age", "200", "instances[1].age: expected INT8, got 200, which does not fit"),
        ("age", "1.5", "instances[1].age: expected an integer, got 1.5"),
        ("age", "1e3", "instances[1].age: expected INT8, got 1000.0, which does not fit"),
        ("id", "1e16", "instances[1].id: expected an integer, got 1.0e16"),
        ("age", "true", "instances[1].age: expected an integer, got true"),
        ("id", "-1", "instances[1].id: expected UINT64, got -1, which does not fit"),
        ("ratio", "\"high\"", "instances[1].ratio: expected a number, got \"high\""),
        ("ratio", "1e39", "instances[1].ratio: expected FP32, got 1.0e39, which does not fit"),
        ("ratio", "1" ^ 320, "instances[1].ratio: expected FP32, got a number with many digits, which does not fit"),
        ("is_member", "1", "instances[1].is_member: expected true or false, got 1"),
        ("town", "7", "instances[1].town: expected a string, got 7"),
        ("town", "{\"a\":1}", "instances[1].town: expected a string, got an object"),
        ("place", "[1]", "instances[1].place: expected 2 values, got 1"),
        ("place", "1", "instances[1].place: expected an array, got a number"),
        ("place", "[1,\"x\"]", "instances[1].place[1]: expected a number, got \"x\""),
    )
        @test said(changed(name, value)) == words
    end
    @test said("{\"instances\":[$(replace(GOOD, "\"age\":3" => "\"agee\":3"))]}") ==
          "instances[0]: there is no input \"agee\"; instances[0].age is missing"
    @test said("{\"instances\":[[1]]}") == "instances[0]: expected 7 values, got 1"
    @test said("{\"instances\":[3]}") == "instances[0]: expected an object or an array, got a number"
    @test said("{\"instances\":{}}") == "instances must be an array, got an object"
    @test said("{}") == "instances is missing"
    @test said("[]") == "expected an object with \"instances\", got an array"
    @test said("{\"instances\":[],\"parameters\":[]}") == "parameters must be an object, got an array"
    many = "{\"instances\":[$(join(["1" for _ in 1:50], ","))]}"
    @test endswith(said(many), "; and more") && count(isequal(';'), said(many)) == 10
end

const TWO = Signature([Tensor("a", "FP64", [-1]), Tensor("b", "FP64", [-1])], [Tensor("y", "FP64", [-1])])
tensors(text; accepts = String[]) = read_tensors(text, TWO, accepts)
one(name, shape, data, type = "FP64") = "{\"name\":\"$name\",\"shape\":$shape,\"datatype\":\"$type\",\"data\":$data}"

@testset "tensors become rows" begin
    columns = tensors("{\"id\":\"x\",\"inputs\":[$(one("b", "[2]", "[3,4]")),$(one("a", "[2,1]", "[[1],[2]]"))]}")
    @test (columns.id, rowwise(columns.rows)) == ("x", [[1.0, 3.0], [2.0, 4.0]])
    @test rowwise(tensors("{\"inputs\":[$(one("x", "[2,2]", "[1,2,3,4]"))]}").rows) == [[1.0, 2.0], [3.0, 4.0]]
    @test rowwise(tensors("{\"inputs\":[$(one("x", "[2,2]", "[[1,2],[3,4]]"))]}").rows) == [[1.0, 2.0], [3.0, 4.0]]
    @test isempty(tensors("{\"inputs\":[$(one("x", "[0,2]", "[]"))]}").rows)
    deep = Signature([Tensor("v", "FP64", [-1, 2, 1])], [])
    @test rowwise(read_tensors("{\"inputs\":[$(one("v", "[2,2,1]", "[1,2,3,4]"))]}", deep).rows) ==
          [[[[1.0], [2.0]]], [[[3.0], [4.0]]]]
    wide = Signature([Tensor("v", "FP64", [-1, 2])], [])
    @test rowwise(read_tensors("{\"inputs\":[$(one("v", "[1,2]", "[1,2]"))]}", wide).rows) == [[[1.0, 2.0]]]
end

@testset "what is wrong with tensors is said" begin
    for (text, words) in (
        "[]" => "expected an object with \"inputs\"",
        "{}" => "inputs must be an array with at least one tensor",
        "{\"inputs\":[]}" => "inputs must be an array with at least one tensor",
        "{\"id\":1,\"inputs\":[]}" => "id must be a string",
        "{\"inputs\":[1]}" => "inputs[0]: expected an object, got a number",
        "{\"inputs\":[{}]}" => "inputs[0].name must be a string",
        "{\"inputs\":[$(one("a", "[1]", "[1]", "FP65"))]}" => "inputs[0].datatype: \"FP65\" is not a datatype",
        "{\"inputs\":[$(one("a", "[-1]", "[1]"))]}" => "inputs[0].shape must be an array of sizes",
        "{\"inputs\":[$(one("a", "[true]", "[1]"))]}" => "inputs[0].shape must be an array of sizes",
        "{\"inputs\":[$(one("a", "[1]", "\"AA==\""))]}" => "inputs[0].data must be an array",
        "{\"inputs\":[$(one("a", "[3]", "[1]"))]}" => "inputs[0]: shape [3] means 3 values, data has 1",
        "{\"inputs\":[$(one("a", "[2,0]", "[]"))]}" => "inputs[0].shape: rows without values, [2, 0]",
        "{\"inputs\":[$(one("a", "[1]", "[true]"))]}" => "inputs[0].data[0]: expected a number, got true",
        "{\"inputs\":[$(one("c", "[1]", "[1]")),$(one("a", "[1]", "[1]"))]}" => "there is no input \"c\"; input b is missing",
        "{\"inputs\":[$(one("a", "[1]", "[1]")),$(one("a", "[1]", "[1]")),$(one("b", "[1]", "[1]"))]}" => "an input is there twice",
        "{\"inputs\":[$(one("a", "[1]", "[1]")),$(one("b", "[2]", "[1,2]"))]}" => "the inputs differ in their number of rows",
        "{\"inputs\":[$(one("x", "[1,3]", "[1,2,3]"))]}" => "x: expected shape [rows, 2], got [1, 3]",
        "{\"inputs\":[$(one("x", "[2147483647,2147483647,2147483647]", "[1]"))]}" => "means 9903520300447984150353281023 values",
    )
        problem = refused(read_tensors, text, TWO)
        @test problem.status == 422 && startswith(problem.detail, words) || occursin(words, problem.detail)
    end
end

@testset "an integer may be written as 1.0" begin
    text = replace(GOOD, "\"age\":3" => "\"age\":3.0", "18446744073709551615" => "9007199254740992.0")
    rows = read_instances("{\"instances\":[$text]}", MIXED).rows
    @test (only(rows.columns[1]), only(rows.columns[2])) === (3, UInt64(2)^53)
end

@testset "a value that is no category is refused, whatever other rows have" begin
    colours = Signature([Tensor("c", "BYTES", [-1], Any["red", "green"]), Tensor("n", "INT8", [-1], Any[1, 2])], [])
    good = read_instances("{\"instances\":[[\"red\",1],[null,2.0]]}", colours).rows
    @test isequal(rowwise(good), [["red", 1], [missing, 2]])
    @test said("{\"instances\":[[\"red\",1],[\"teal\",3]]}", colours) ==
          "instances[1][0]: expected one of \"red\", \"green\", got \"teal\"; instances[1][1]: expected one of 1, 2, got 3"
end

@testset "parameters and fields that nobody knows are refused" begin
    read_one(text, accepts) = () -> read_instances(text, TWO, accepts)
    detail(action) =
        try
            action()
            ""
        catch error
            error.detail
        end
    known = ["classes", "probabilities", "top"]
    for (parameters, words) in (
        "{\"probability\":true}" => "there is no \"probability\"; this model knows classes, probabilities, top",
        "{\"probabilities\":\"false\"}" => "parameters.probabilities: expected true or false, got \"false\"",
        "{\"classes\":1}" => "expected true or false, got 1",
        "{\"content_type\":\"pd\"}" => "there is no \"content_type\"",
    )
        @test occursin(words, detail(read_one("{\"instances\":[],\"parameters\":$parameters}", known)))
    end
    scoring = read_one("{\"instances\":[],\"parameters\":{\"probabilities\":null,\"top\":\"x\"}}", known)()
    @test scoring.parameters == Dict("top" => "x")
    @test occursin("this model knows none", detail(read_one("{\"instances\":[],\"parameters\":{\"a\":1}}", String[])))
    @test occursin("there is no field \"probabilities\"", detail(read_one("{\"instances\":[],\"probabilities\":true}", known)))
    inputs = "\"inputs\":[$(one("a", "[1]", "[1]")),$(one("b", "[1]", "[1]"))]"
    ignored = "{$inputs,\"parameters\":{\"content_type\":\"pd\",\"binary_data_output\":false},\"model_name\":\"x\"}"
    @test isempty(tensors(ignored).parameters)
    @test tensors("{$inputs,\"outputs\":[{\"name\":\"y\"}]}").outputs == ["y"]
    @test occursin(
        "there is no output \"z\"; there are y",
        refused(read_tensors, "{$inputs,\"outputs\":[{\"name\":\"z\"}]}", TWO).detail,
    )
end
