# The backend as it ships, but for the web server: bin/serve test/serve.jl

include("../src/Backend.jl")
include(get(ENV, "PREDICT", "../src/predict.jl"))
include("SocketServer.jl")

const INPUT = "--stop-with-input" in ARGS ? stdin : nothing

Backend.leave(Backend.serve(SocketServer.listen, Backend.Predictor(Predict.load, Predict.predict), input = INPUT))
