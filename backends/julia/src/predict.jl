"""
The file to edit: how a model is loaded, and how it predicts. Nothing here knows about the web.

`load` is called once, after every file of the artifact has been checked against its SHA-256. `predict` is called in several
threads at once, with rows in the order of the signature, and returns one prediction for each row, in the same order: a vector,
or a matrix with a row for each. It must not change the model. `throw(Refused("why"))` tells the caller 422 and why;
anything else that is thrown is a 500, and its stack in the log.
"""
module Predict

using ..Backend: Manifest, Refused, main_file
using Serialization: deserialize

"Load the model from the artifact's files in `folder`."
load(folder, manifest::Manifest) = load(Val(Symbol(manifest.format)), folder, manifest)

# A serialized object is read by the same or a newer Julia than wrote it. It is code: only checked files come here.
load(::Val{:jls}, folder, manifest) = deserialize(joinpath(folder, main_file(manifest, ".jls")))

# JLD2 has its method in jld2.jl.
load(::Val, _, manifest) =
    throw(ArgumentError("this backend loads \"jls\" and \"jld2\", not \"$(manifest.format)\"; teach it in predict.jl"))

"""
Predict each row: for a classifier as examples/wine/train.jl makes it, the class. `{"parameters": {"probabilities": true}}`
asks for the probability of each class instead. Of a row with a missing value nothing can be said: its prediction is missing.

A value is a `Float64`, an `Int64`, a `Bool` or a `String` as the signature says, or `missing`.
"""
function predict(model, rows, parameters)
    scores = standardized(table(rows), model) * model.weights .+ model.intercepts
    get(parameters, "probabilities", false) === true && return softmax(scores)
    return [any(isnan, row) ? missing : model.classes[argmax(row)] for row in eachrow(scores)]
end

"A matrix of the rows; NaN where a value is missing."
table(rows) = [Float64(coalesce(row[column], NaN)) for row in rows, column in eachindex(first(rows))]

standardized(table, model) = (table .- model.means) ./ model.scales

function softmax(scores)
    shifted = exp.(scores .- maximum(scores, dims = 2))
    return shifted ./ sum(shifted, dims = 2)
end

end
