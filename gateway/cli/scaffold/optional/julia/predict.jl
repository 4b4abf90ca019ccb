# Code around the model @NAME@: what is defined here replaces what has the same name in the library's src/predict.jl. Delete what
# you do not need. `using` takes packages that Project.toml names, `Refused("why")` answers 422.

# Request parameters of your own, besides `probabilities` and `classes` of classifiers.
const PARAMETERS = String[]

"The labels of a classifier in the order of its probabilities; nothing for any other model."
classes(model) = hasproperty(model, :classes) ? model.classes : nothing

"""
One prediction for each row: a vector, a matrix with a row for each, or a table. `rows` is a named tuple of vectors in the order of the
signature, which is a Tables.jl table. It runs in several threads at once, and must not change the model.
"""
function predict(model, rows, parameters)
    x = stack(Float64.(coalesce.(column, NaN)) for column in rows)
    scores = (x .- model.means) ./ model.scales * model.weights .+ model.intercepts
    if get(parameters, "probabilities", false)
        shifted = exp.(scores .- maximum(scores, dims = 2))
        return shifted ./ sum(shifted, dims = 2)
    end
    return [any(isnan, row) ? missing : model.classes[argmax(row)] for row in eachrow(scores)]
end
