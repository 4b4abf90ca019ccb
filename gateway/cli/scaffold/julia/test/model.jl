# The model predicts what it did when it was trained. Make these tests your own.
using Test

include("../src/Backend.jl")
include("../src/predict.jl")

const FOLDER = dirname(@__DIR__)

@testset "the samples come out as in training" begin
    trained = mktempdir()
    run(`$(Base.julia_cmd()) --startup-file=no $(joinpath(FOLDER, "examples/wine/train.jl")) $trained`)
    parsed(name) = Backend.parse_json(read(joinpath(trained, name)))
    signature = Backend.read_signature(parsed("signature.json"), "signature")
    model = Predict.deserialize(joinpath(trained, "model.jls"))
    for sample in parsed("samples.json")
        rows = Backend.table(Backend.read_instances(String(Backend.encode(sample["request"])), signature).rows)
        @test Predict.predict(model, rows, Dict{String,Any}()) == sample["response"]["predictions"]
    end
end
