"Reference backend for CHIPS: serves one version of one Julia model, by Genie."
module ChipsBackend

using PrecompileTools: @compile_workload

include("Backend.jl")
include("predict.jl")
include("jld2.jl")
include("GenieServer.jl")

using .Backend: CannotSave, Predictor, publish

export CannotSave, publish, save_model

const PREDICTOR = Backend.Predictor(Predict)

"""
    save_model(model, folder; example, training, names, format, samples, overwrite, predict, predictor, out)

Write a trained model, its signature and samples into `folder`, and check that a backend predicts the same: see
[`Backend.save_model`](@ref). `predict` is the path of a predict.jl, which replaces what it defines of the library's; where there is no
such file, the library's own says how the model predicts. `predictor` is a module to use instead of both.
"""
function save_model(model, folder; predict = "", predictor = PREDICTOR, options...)
    predictor isa Module && (predictor = Predictor(predictor))
    isfile(predict) && (predictor = Backend.with_own_code(predictor, predict))
    return Backend.save_model(model, folder; predictor, options...)
end

"Serve; with `--stop-with-input` until standard input ends. Returns the process's exit code."
serve(arguments = ARGS; predictor = PREDICTOR) =
    Backend.serve(GenieServer.listen, predictor, input = "--stop-with-input" in arguments ? stdin : nothing)

# What is run here once is compiled when the package is, not when the first caller waits.
@compile_workload Backend.exercise(GenieServer.listen, PREDICTOR)

end
