# julia train.jl OUT: train every kind, and write for each the model, its signature, samples, rows and what the library predicts.

include("library.jl")

using .Library, JLD2
using Random: MersenneTwister
using Serialization: serialize

const JSON = Base.require(Base.PkgId(Base.UUID("682c06a0-de6a-54ab-a142-c8b1cf79cde6"), "JSON"))
write_json(path, content) = write(path, Base.invokelatest(JSON.json, content))

"`columns` by name, `predict(columns)`; the first seven rows are asked for. A column's datatype is that of its values."
function write_kind(out, kind, model, columns, predict; outputs, suffix = "jls", probabilities = nothing, categories = Dict())
    folder = mkpath(joinpath(out, kind))
    named = (kind = kind, model = model)
    suffix == "jls" && serialize(joinpath(folder, "model.jls"), named)
    suffix == "jld2" && jldsave(joinpath(folder, "model.jld2"); model = named)
    suffix == "json" && write_json(joinpath(folder, "model.json"), named)
    names = collect(keys(columns))
    datatype(column) = column isa Vector{Float64} ? "FP64" : column isa Vector{Int} ? "INT64" : "BYTES"
    inputs = map(names) do name
        input = Dict{String,Any}("name" => string(name), "datatype" => datatype(columns[name]))
        haskey(categories, name) && (input["categories"] = categories[name])
        input
    end
    write_json(joinpath(folder, "signature.json"), Dict("inputs" => inputs, "outputs" => outputs))
    rows = [Dict(string(name) => columns[name][row] for name in names) for row in 1:7]
    asked = map(column -> column[1:7], columns)
    expected = predictions(predict(asked), 7)
    sample = Dict("request" => Dict("instances" => rows[1:1]), "response" => Dict("predictions" => expected[1:1]), "tolerance" => 1e-6)
    write_json(joinpath(folder, "samples.json"), [sample])
    written = Dict{String,Any}("rows" => rows, "predictions" => expected)
    probabilities === nothing || (written["probabilities"] = [collect(row) for row in eachrow(probabilities(asked))])
    probabilities === nothing || (written["classes"] = model.classes)
    write_json(joinpath(folder, "expected.json"), written)
end

predictions(found::AbstractMatrix, _) = [collect(row) for row in eachrow(found)]
predictions(found::NamedTuple, count) = [Dict(string(name) => plain(part[row]) for (name, part) in pairs(found)) for row in 1:count]
predictions(found::AbstractVector, _) = map(plain, found)
plain(value::Real) = value
plain(value) = string(value)

function main(out)
    random = MersenneTwister(7)
    x = randn(random, 60, 3)
    y = 2 .* x[:, 1] .- x[:, 2] .* x[:, 3] .+ 0.1 .* randn(random, 60)
    labels = [value > 1 ? "high" : value < -1 ? "low" : "middle" for value in y]
    numbers = (a = x[:, 1], b = x[:, 2], c = x[:, 3])
    matrix(columns) = reduce(hcat, values(columns))
    output(name, datatype; width = nothing) =
        [Dict("name" => name, "datatype" => datatype, "shape" => width === nothing ? [-1] : [-1, width])]
    # `over(f)` is f of the model and the matrix.
    over(f, model) = columns -> f(model, matrix(columns))
    for (kind, model, predict, type, suffix) in (
        ("ridge", Library.fit_ridge(x, y), Library.predict_ridge, "FP64", "json"),
        ("neighbours", Library.fit_neighbours(x, labels), Library.predict_neighbours, "BYTES", "jld2"),
        ("centres", Library.fit_centres(x, 3), Library.predict_centres, "INT64", "jls"),
        ("process", Library.fit_process(x, y), Library.predict_process, "FP64", "jld2"),
        ("network", Library.fit_network(x, y), Library.predict_network, "FP32", "jld2"),
    )
        write_kind(out, kind, model, numbers, over(predict, model); outputs = output("y", type), suffix = suffix)
    end
    model = Library.fit_components(x, 2)
    write_kind(out, "components", model, numbers, over(Library.predict_components, model); outputs = output("y", "FP64", width = 2), suffix = "jld2")
    model = Library.fit_softmax(x, labels)
    write_kind(
        out, "softmax", model, numbers, over(Library.predict_softmax, model);
        outputs = output("y", "BYTES"), probabilities = over(Library.probabilities_softmax, model),
    )
    colours, sizes = rand(random, ["red", "green", "blue"], 60), rand(random, 1:3, 60)
    for (kind, categories) in ("bayes" => Dict(), "bayes-categories" => Dict(:colour => ["red", "green", "blue"], :size => [1, 2, 3]))
        model = Library.fit_bayes(colours, sizes, labels)
        predict(columns) = Library.predict_bayes(model, columns.colour, columns.size)
        write_kind(out, kind, model, (colour = colours, size = sizes), predict; outputs = output("y", "BYTES"), categories = categories)
    end
    texts = [join(rand(random, ["good", "bad", "fine", "awful", "Wein"], 4), " ") for _ in 1:60]
    model = Library.fit_words(texts, y)
    write_kind(out, "words", model, (text = texts,), columns -> Library.predict_words(model, columns.text); outputs = output("y", "FP64"))
    bought = ["20$(10 + row % 20)-0$(1 + row % 9)-$(10 + row % 18)" for row in 1:60]
    model = (rate = 1.5, daily = 0.01)
    bonds = (bought = bought, years = rand(random, 1:9, 60), days = rand(random, 0:300, 60))
    write_kind(
        out, "bond", model, bonds, columns -> Library.predict_bond(model, columns.bought, columns.years, columns.days);
        outputs = [output("due", "BYTES"); output("pays", "FP64")],
    )
end

main(only(ARGS))
