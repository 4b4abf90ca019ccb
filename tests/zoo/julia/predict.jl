"What a data scientist writes to serve any model of library.jl."
module Predict

include("library.jl")

import JLD2
using ..Backend: Backend, Refused, main_file
using Serialization: deserialize

function load(folder, manifest)
    file(suffix) = joinpath(folder, main_file(manifest, suffix))
    manifest.format == "jls" && return deserialize(file(".jls"))
    manifest.format == "jld2" && return JLD2.load(file(".jld2"), "model")
    saved = Backend.parse_json(read(file(".json")))  # the ridge's coefficients
    return (kind = saved["kind"], model = (coefficients = Float64.(saved["model"]["coefficients"]),))
end

classes(named) = named.kind == "softmax" ? named.model.classes : nothing

matrix(rows) = stack(Float64.(coalesce.(column, NaN)) for column in rows)

const OVER_MATRIX = Dict(
    "ridge" => Library.predict_ridge, "neighbours" => Library.predict_neighbours,
    "centres" => Library.predict_centres, "process" => Library.predict_process, "network" => Library.predict_network,
    "components" => Library.predict_components, "softmax" => Library.predict_softmax,
)

function predict((kind, model), rows, parameters)
    get(parameters, "probabilities", false) && return Library.probabilities_softmax(model, matrix(rows))
    haskey(OVER_MATRIX, kind) && return OVER_MATRIX[kind](model, matrix(rows))
    startswith(kind, "bayes") && return Library.predict_bayes(model, rows.colour, rows.size)
    kind == "words" && return Library.predict_words(model, rows.text)
    return Library.predict_bond(model, rows.bought, rows.years, rows.days)
end

end
