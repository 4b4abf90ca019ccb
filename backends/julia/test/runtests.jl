# julia --project=. test/runtests.jl: the backend with Genie, and without it.

using Test, Logging

import ChipsBackend
using ChipsBackend: Backend, Predict
using .Backend: Headers

@testset "the backend" begin
    for part in (
        "json",
        "config",
        "trace",
        "logs",
        "manifest",
        "artifact",
        "schema",
        "reading",
        "binary",
        "answers",
        "workers",
        "app",
        "publish",
        "saving",
        "packages",
    )
        @testset "$part" begin
            include("$part.jl")
        end
    end
end
