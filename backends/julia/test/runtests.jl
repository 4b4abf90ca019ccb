# julia test/runtests.jl: the backend without Genie, in the standard library alone.

using Test, Logging

include("../src/Backend.jl")
include("../src/predict.jl")

using .Backend: Backend, Headers

@testset "the backend without a web server" begin
    for part in ("json", "config", "trace", "logs", "manifest", "artifact", "schema", "workers", "app", "publish", "packages")
        @testset "$part" begin
            include("$part.jl")
        end
    end
end
