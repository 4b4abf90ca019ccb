# From a model to a folder: what is understood of a table, and that what was written predicts the same.

using .Backend: CannotSave, Predictor, Saved, example_columns, covering_rows, note, read_instances, save_model
using .Backend.StrictJSON: parse_json
using Dates: Date, DateTime
using Serialization: deserialize

@enum Shade pale dark

struct OfThisScript
    factor::Float64
end

described(example; names = nothing) =
    [(column.tensor.name, column.tensor.datatype, column.tensor.shape, note(column)) for column in example_columns(example, names)]
complaint(action) =
    try
        action()
        ""
    catch error
        error isa CannotSave || rethrow()
        error.message
    end

@testset "what a table has" begin
    table = (
        age = Int8[3, 90],
        id = UInt64[1, typemax(UInt64)],
        ratio = Float32[0.5, 1.5],
        price = [missing, 2.5],
        count = [7, missing],
        is_member = [true, false],
        town = ["Ulm", missing],
        code = [:a, :b],
        born = [Date(2001, 2, 3), Date(2002, 3, 4)],
        seen = [DateTime(2026), DateTime(2025)],
        shade = [pale, dark],
        place = [[1.0, 2.0], [3.0, 4.0]],
        tags = [["a"], ["b", "c"]],
        half = [1 // 2, 3 // 4],
        gap = [NaN, 1.0],
        mixed = Any[1, 2],
    )
    @test described(table) == [
        ("age", "INT8", [-1], "3 to 90"),
        ("id", "UINT64", [-1], "1 to 18446744073709551615"),
        ("ratio", "FP32", [-1], "0.5 to 1.5"),
        ("price", "FP64", [-1], "2.5 to 2.5; 1 of 2 missing"),
        ("count", "INT64", [-1], "7 to 7; 1 of 2 missing"),
        ("is_member", "BOOL", [-1], ""),
        ("town", "BYTES", [-1], "1 of 2 missing"),
        ("code", "BYTES", [-1], ""),
        ("born", "BYTES", [-1], ""),
        ("seen", "BYTES", [-1], ""),
        ("shade", "BYTES", [-1], "2 categories: pale, dark"),
        ("place", "FP64", [-1, 2], "arrays of 2"),
        ("tags", "BYTES", [-1, -1], "arrays of any"),
        ("half", "FP64", [-1], "0.5 to 0.75"),
        ("gap", "FP64", [-1], "1.0 to 1.0; 1 of 2 missing"),
        ("mixed", "INT64", [-1], "1 to 2"),
    ]
    @test described([1 2; 3 4]) == [("x1", "INT64", [-1], "1 to 3"), ("x2", "INT64", [-1], "2 to 4")]
    @test first.(described([1.0 2.0], names = ["a", "b"])) == ["a", "b"]
    @test described([(a = 1, b = "x"), (a = 2, b = "y")]) == described(Dict("b" => ["x", "y"], "a" => [1, 2]))
    wide = NamedTuple{Tuple(Symbol("c$place") for place in 1:300)}(Tuple([1.0, 2.0] for _ in 1:300))
    @test length(described(wide)) == 300
end

@testset "what a table cannot have" begin
    for (example, words) in (
        (a = [1im],) => "a holds Complex{Int64}, which no datatype describes",
        (a = [missing, missing],) => "every value of a is missing",
        (a = Int[],) => "no rows or no columns",
        NamedTuple() => "no rows or no columns",
        [1, 2] => "pass a table",
        (a = ["x", 1],) => "no datatype describes",
        (a = [Int128(1)],) => "no datatype describes",
        (a = 1,) => "must be a vector",
    )
        @test occursin(words, complaint(() -> example_columns(example, nothing)))
    end
    @test occursin("names has 1 names for 2 columns", complaint(() -> example_columns([1 2], ["a"])))
end

@testset "samples cover missing values and categories first" begin
    table = (x = [1.0, 2.0, missing, 4.0, 5.0], shade = [pale, pale, pale, pale, dark])
    columns = example_columns(table, nothing)
    @test covering_rows(columns, 3) == [1, 3, 5]
    @test covering_rows(columns, 4) == [1, 2, 3, 5]
    @test covering_rows(columns, 1) == [1]
    @test covering_rows(columns, 99) == 1:5
end

"2x, and 100 for dark."
shaded(model, rows, parameters) =
    [ismissing(x) ? missing : model.factor * x + (string(shade) == "dark" ? 100 : 0) for (x, shade) in zip(rows.x, rows.shade)]
loaded_by(name) = Predictor((folder, manifest) -> deserialize(joinpath(folder, "model.jls")), name)
const SHADED = (x = [1.0, missing, 3.0, 4.0], shade = [pale, dark, pale, dark])

@testset "what was written is read back, and predicts the same" begin
    folder, out = joinpath(mktempdir(), "trained"), IOBuffer()
    saved = save_model((factor = 2.0,), folder, example = SHADED, predictor = loaded_by(shaded), format = "jls", out = out)
    said = String(take!(out))
    @test sort(readdir(folder)) == ["card.md", "model.jls", "runtime.json", "samples.json", "signature.json"]
    @test (saved.format, saved.samples, isempty(saved.packages)) == ("jls", 4, true)
    signature, samples = parse_json(read(joinpath(folder, "signature.json"))), parse_json(read(joinpath(folder, "samples.json")))
    @test signature["inputs"][2] ==
          Dict("name" => "shade", "datatype" => "BYTES", "shape" => [-1], "categories" => ["pale", "dark"])
    @test signature["outputs"] == [Dict("name" => "prediction", "datatype" => "FP64", "shape" => [-1])]
    @test samples[2]["request"] == Dict("instances" => [Dict("x" => nothing, "shade" => "dark")])
    @test [sample["response"]["predictions"] for sample in samples] == [[2.0], [nothing], [6.0], [108.0]]
    for words in (
        "shade  BYTES     2 categories: pale, dark",
        "x      FP64      1.0 to 4.0; 1 of 4 missing",
        "next     chips new julia NAME --from $folder",
        "or       chips publish $folder",
        "card.md is a draft",
    )
        @test occursin(words, said)
    end
    again(; options...) = save_model(
        (factor = 3.0,),
        folder;
        example = SHADED,
        predictor = loaded_by(shaded),
        format = "jls",
        out = devnull,
        options...,
    )
    @test occursin("already has model.jls, signature.json, samples.json, runtime.json; pass overwrite = true", complaint(again))
    @test again(overwrite = true, samples = 2).samples == 2
    @test deserialize(joinpath(folder, "model.jls")).factor == 3.0
    broken = loaded_by((model, rows, parameters) -> error("never"))
    @test occursin("does not predict the rows", complaint(() -> again(overwrite = true, predictor = broken)))
    @test deserialize(joinpath(folder, "model.jls")).factor == 3.0
end

@testset "what a backend would predict otherwise is refused" begin
    save(predict; model = (factor = 2.0,), example = SHADED, options...) = save_model(
        model,
        joinpath(mktempdir(), "x");
        example,
        predictor = loaded_by(predict),
        format = "jls",
        out = devnull,
        options...,
    )
    by_type(model, rows, parameters) = [shade isa Shade ? 1.0 : 0.0 for shade in rows.shade]
    @test occursin("a backend would predict 0.0 for the sample 1 alone, the model here 1.0", complaint(() -> save(by_type)))
    of_enum(model, rows, parameters) = [Int(shade) for shade in rows.shade]
    @test occursin("a backend could not serve it: MethodError", complaint(() -> save(of_enum)))
    by_company(model, rows, parameters) = fill(length(rows.x), length(rows.x))
    @test occursin("for the sample 1 alone", complaint(() -> save(by_company)))
    short(model, rows, parameters) = [1.0]
    @test occursin("1 predictions for 4 rows; change predict.jl", complaint(() -> save(short)))
    @test occursin("the model uses OfThisScript of this script", complaint(() -> save(shaded, model = OfThisScript(2.0))))
    @test occursin("of this script", complaint(() -> save(shaded, model = (factor = 2.0, more = [Any[1, OfThisScript(1.0)]]))))
    @test occursin("the format \"onnx\" is not known", complaint(() -> save(shaded, format = "onnx")))
    @test occursin("samples must be at least 1", complaint(() -> save(shaded, samples = 0)))
end

@testset "several outputs, matrices, texts" begin
    outputs(predict) =
        mktempdir() do folder
            example = (x = [1.0, 2.0],)
            save_model((factor = 2.0,), folder; example, predictor = loaded_by(predict), format = "jls", out = devnull)
            [
                (output["name"], output["datatype"], output["shape"]) for
                output in parse_json(read(joinpath(folder, "signature.json")))["outputs"]
            ]
        end
    @test outputs((model, rows, _) -> (price = rows.x, sold = rows.x .> 1)) == [("price", "FP64", [-1]), ("sold", "BOOL", [-1])]
    @test outputs((model, rows, _) -> [rows.x rows.x rows.x]) == [("prediction", "FP64", [-1, 3])]
    @test outputs((model, rows, _) -> string.(rows.x)) == [("prediction", "BYTES", [-1])]
end

# What GLM and MLJ hold of a column of categories, by the names of their types' fields.
struct Contrasts
    levels::Vector{String}
end
struct CategoricalTerm
    sym::Symbol
    contrasts::Contrasts
end
struct OneHotEncoderResult
    fitted_levels_given_feature::Dict{Symbol,Vector{Any}}
end

"The categories in the signature, and what is said of the column."
function categories_of_saved(model; predictor = Predictor(nothing, nothing), town = ["Ulm", "Bonn", missing])
    known = Backend.known_categories(model, predictor.categories(model))
    column = only(Backend.with_known_categories(example_columns((town = town,), nothing), known))
    return column.tensor.categories, column.remark
end

@testset "the categories that a model holds are all that is accepted" begin
    term = CategoricalTerm(:town, Contrasts(["Bonn", "Ulm", "Köln"]))
    refused = "the model's; others are refused"
    @test categories_of_saved((terms = Any[1.0, (term,)],)) == (["Bonn", "Ulm", "Köln"], refused)
    encoder = OneHotEncoderResult(Dict(:town => Any["Ulm", missing, "Bonn"]))
    @test categories_of_saved(Dict("machine" => [encoder])) == (["Ulm", "Bonn"], refused)
    stated = Predictor(nothing, nothing, categories = model -> model.known)
    @test categories_of_saved((known = (town = ("Bonn", "Ulm"),),), predictor = stated) == (["Bonn", "Ulm"], refused)
    @test categories_of_saved((known = Dict("town" => [2, 1]),), predictor = stated, town = [1, 2]) == ([2, 1], refused)
    # What is no list of categories says nothing.
    for odd in (nothing, 3, ["town"], Dict("town" => "Ulm"), Dict("town" => []), Dict("town" => ["Ulm", 1, "Bonn"]))
        @test categories_of_saved((known = odd,), predictor = stated) == (nothing, "")
    end
    categories, remark = categories_of_saved((terms = [CategoricalTerm(:town, Contrasts(["Ulm"]))],))
    @test categories === nothing && startswith(remark, "the model does not know \"Bonn\"")
    many = CategoricalTerm(:town, Contrasts([["Ulm", "Bonn"]; string.(1:20_000)]))
    @test endswith(last(categories_of_saved(many)), "too many to refuse others")
end

@testset "baseline.json" begin
    total = 30_000
    training = (x = Any[place % 3 == 0 ? missing : Float64(place) for place in 1:total], shade = [pale for _ in 1:total])
    training.shade[1:9] .= dark
    asked = Int[]
    function counted(model, rows, parameters)
        push!(asked, length(rows.x))
        return shaded(model, rows, parameters)
    end
    folder = mktempdir()
    save(; options...) = save_model(
        (factor = 2.0,),
        folder;
        example = SHADED,
        predictor = loaded_by(counted),
        format = "jls",
        out = devnull,
        options...,
    )
    save(training = training)
    @test maximum(asked) == 10_000
    found = parse_json(read(joinpath(folder, "baseline.json")))
    @test (found["schema"], found["rows"], found["least_count"]) == (1, total, 10)
    @test found["inputs"]["shade"] ==
          Dict("datatype" => "BYTES", "count" => total, "missing" => 0, "frequent" => Dict("pale" => total - 9), "other" => 9)
    x = found["inputs"]["x"]
    @test (x["count"], x["missing"]) == (20_000, 10_000)
    @test sum(values(x["quantiles"]["positive"])) == 20_000
    @test length(x["quantiles"]["positive"]) <= 256
    @test found["outputs"]["prediction"]["count"] + found["outputs"]["prediction"]["missing"] == 10_000
    @test occursin("Trained on 30000 rows", read(joinpath(folder, "card.md"), String))
    write(joinpath(folder, "card.md"), "mine")
    save(overwrite = true)
    @test !isfile(joinpath(folder, "baseline.json"))
    @test read(joinpath(folder, "card.md"), String) == "mine"
    @test occursin("training has no column shade", complaint(() -> save(overwrite = true, training = (x = [1.0],))))
    @test occursin(
        "x is FP64 in the example and BYTES in training",
        complaint(() -> save(overwrite = true, training = (x = ["1"], shade = [pale]))),
    )
    sketched = Backend.sketch([0.0, -0.0, 5e-324, -1.0, 1.0, 1.02, NaN, Inf], 256)
    @test String(Backend.StrictJSON.encode(sketched)) ==
          "{\"gamma\":1.02020202020202,\"zero\":3,\"negative\":{\"0\":1},\"positive\":{\"0\":1,\"1\":1}}"
end

@testset "names in the card say nothing else than names" begin
    @test Backend.card_name("a`b\n## Owner\u202e") == "a'b\\n## Owner\\u202e"
    @test Backend.card_name("x"^90) == "x"^59 * "…"
end

@testset "a person's own predict.jl replaces what it defines" begin
    path = joinpath(mktempdir(), "predict.jl")
    write(joinpath(dirname(path), "more.jl"), "thrice(x) = 3x")
    write(
        path,
        "include(\"more.jl\")\npredict(model, rows, parameters) = thrice.(rows.x)\nconst PARAMETERS = [\"unit\"]\nrefuse() = throw(Refused(\"no\"))\n",
    )
    own = Backend.with_own_code(loaded_by(shaded), path)
    @test own.parameters == ["unit"]
    folder = mktempdir()
    save_model((factor = 2.0,), folder, example = (x = [1.0, 2.0],), predictor = own, format = "jls", out = devnull)
    @test [sample["response"]["predictions"] for sample in parse_json(read(joinpath(folder, "samples.json")))] == [[3.0], [6.0]]
    @test Backend.with_own_code(own, "") === own
    write(path, "predict(model, rows, parameters) = (")
    @test_throws LoadError Backend.with_own_code(own, path)
end
