"""
The file to edit: how a model is loaded, and how it predicts. Nothing here knows about the web.

`load` is called once, after every file of the artifact has been checked against its SHA-256. `predict` is called in several
threads at once, and returns one prediction for each row, in the same order: a vector, a matrix with a row for each, or a table.
It must not change the model. `throw(Refused("why"))` tells the caller 422 and why; anything else that is thrown is a 500, and its
stack in the log, unless the row is one that the model cannot take.
"""
module Predict

using ..Backend: Manifest, Refused, main_file
using Serialization: deserialize

# Parameters of requests that `predict` knows, besides `probabilities` and `classes` of classifiers.
const PARAMETERS = String[]

"Load the model from the artifact's files in `folder`."
load(folder, manifest::Manifest) = load(Val(Symbol(manifest.format)), folder, manifest)

# A serialized object is read by the same or a newer Julia than wrote it. It is code: only checked files come here.
load(::Val{:jls}, folder, manifest) = deserialize(joinpath(folder, main_file(manifest, ".jls")))

# JLD2 has its method in jld2.jl.
load(::Val, _, manifest) =
    throw(ArgumentError("this backend loads \"jls\" and \"jld2\", not \"$(manifest.format)\"; teach it in predict.jl"))

"The labels of a classifier in the order of its probabilities; nothing for any other model."
classes(model) = hasproperty(model, :classes) ? model.classes : nothing

"""
By column, the categories that the model knows, for `save_model`; nothing where it holds none. Terms of StatsModels and encoders of
MLJ are found without.
"""
categories(model) = hasproperty(model, :categories) ? model.categories : nothing

"""
Predict each row: for a classifier as examples/wine/train.jl makes it, the class. `{"parameters": {"probabilities": true}}`
asks for the probability of each class instead. Of a row with a missing value nothing can be said: its prediction is missing.

`rows` is a named tuple of vectors in the order of the signature, which is a Tables.jl table: `rows.alcohol`, or `DataFrame(rows)`.
Values are `Float64`, `Int64` (`UInt64` of UINT64), `Bool` or `String` as the signature says; where the request has a missing
value, all columns may have `missing`. Without a signature, `rows` are the JSON values as they came.
"""
function predict(model, rows, parameters)
    scores = standardized(matrix(rows), model) * model.weights .+ model.intercepts
    get(parameters, "probabilities", false) && return softmax(scores)
    return [any(isnan, row) ? missing : model.classes[argmax(row)] for row in eachrow(scores)]
end

"A matrix of the rows; NaN where a value is missing."
matrix(rows) = stack(Float64.(coalesce.(column, NaN)) for column in rows)

standardized(table, model) = (table .- model.means) ./ model.scales

function softmax(scores)
    shifted = exp.(scores .- maximum(scores, dims = 2))
    return shifted ./ sum(shifted, dims = 2)
end

end
