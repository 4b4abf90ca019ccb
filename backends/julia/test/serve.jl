# The backend as it ships, with another predict.jl: bin/serve test/serve.jl, and PREDICT names the file.

import ChipsBackend
using ChipsBackend: Backend

include(ENV["PREDICT"])

Backend.leave(ChipsBackend.serve(predictor = Backend.Predictor(Predict)))
