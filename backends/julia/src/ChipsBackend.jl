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
    save_model(model, folder; example, names, format, samples, overwrite, predictor, out)

Write a trained model, its signature and samples into `folder`, and check that a backend predicts the same: see
[`Backend.save_model`](@ref). `src/predict.jl` says how it predicts, or the module that `predictor` is.
"""
save_model(model, folder; predictor = PREDICTOR, options...) =
    Backend.save_model(model, folder; predictor = predictor isa Module ? Predictor(predictor) : predictor, options...)

"Serve; with `--stop-with-input` until standard input ends. Returns the process's exit code."
serve(arguments = ARGS; predictor = PREDICTOR) =
    Backend.serve(GenieServer.listen, predictor, input = "--stop-with-input" in arguments ? stdin : nothing)

# What is run here once is compiled when the package is, not when the first caller waits.
@compile_workload Backend.exercise(GenieServer.listen, PREDICTOR)

end
