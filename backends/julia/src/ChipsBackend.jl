"Reference backend for CHIPS: serves one version of one Julia model, by Genie."
module ChipsBackend

using PrecompileTools: @compile_workload

include("Backend.jl")
include("predict.jl")
include("jld2.jl")
include("GenieServer.jl")

using .Backend: publish

export publish

const PREDICTOR = Backend.Predictor(Predict)

"Serve; with `--stop-with-input` until standard input ends. Returns the process's exit code."
serve(arguments = ARGS; predictor = PREDICTOR) =
    Backend.serve(GenieServer.listen, predictor, input = "--stop-with-input" in arguments ? stdin : nothing)

# What is run here once is compiled when the package is, not when the first caller waits.
@compile_workload Backend.exercise(GenieServer.listen, PREDICTOR)

end
