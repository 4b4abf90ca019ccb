using .Backend: ConfigError, read_config

good() = Dict("CHIPS_MODEL" => "wine", "CHIPS_VERSION" => "3", "CHIPS_ARTIFACT" => "/models/wine/3", "HOME" => "/root")
problems(environ; options...) =
    try
        read_config(environ; options...)
        String[]
    catch error
        error isa ConfigError || rethrow()
        error.problems
    end

@testset "defaults" begin
    config = read_config(good())
    @test (config.port, config.concurrency, config.max_body_bytes) == (8080, 1, 31 * 2^20)
    @test config.cache_dir == joinpath(tempdir(), "chips")
end

@testset "Vertex AI's names stand in for ours, and come second" begin
    environ = Dict(
        "AIP_STORAGE_URI" => "gs://b/p",
        "AIP_HTTP_PORT" => "9000",
        "AIP_PREDICT_ROUTE" => "/v1/endpoints/1:predict",
        "AIP_HEALTH_ROUTE" => "/health",
    )
    config = read_config(environ)
    @test (config.artifact, config.port, config.health_route) == ("gs://b/p", 9000, "/health")
    @test (config.model, config.version, config.predict_route) == (nothing, nothing, "/v1/endpoints/1:predict")
    @test problems(merge(environ, Dict("AIP_HTTP_PORT" => "x"))) == ["AIP_HTTP_PORT='x' is not a whole number from 0 to 65535"]
    @test read_config(merge(environ, Dict("PORT" => "1"))).port == 1
end

@testset "everything that is wrong is named at once" begin
    found = problems(Dict("PORT" => "x", "CHIPS_MODEL" => "Wine", "CHIPS_CONCURENCY" => "2"))
    @test found == [
        "CHIPS_CONCURENCY is not known; did you mean CHIPS_CONCURRENCY?",
        "CHIPS_ARTIFACT is not set: name the folder or gs://bucket/prefix/ of a published model",
        "CHIPS_MODEL='Wine' is not allowed there",
        "PORT='x' is not a whole number from 0 to 65535",
    ]
    wrong = (
        "PORT" => "65536",
        "PORT" => "-1",
        "PORT" => "1 ",
        "CHIPS_MAX_BODY_BYTES" => "0",
        "CHIPS_MODEL" => "a\n",
        "CHIPS_ARTIFACT_DIGEST" => "abc",
        "CHIPS_PREDICT" => "/nowhere/predict.jl",
    )
    for (name, value) in wrong
        @test length(problems(merge(good(), Dict(name => value)))) == 1
    end
end

@testset "the gateway's own settings may stand in the same shell" begin
    @test isempty(problems(merge(good(), Dict("CHIPS_REGISTRY" => "x", "CHIPS_SERVER__PORT" => "1"))))
end

@testset "no more predictions at once than there are threads for" begin
    @test isempty(problems(merge(good(), Dict("CHIPS_CONCURRENCY" => "4")), capacity = 4))
    @test occursin("-t 5,1", only(problems(merge(good(), Dict("CHIPS_CONCURRENCY" => "5")), capacity = 4)))
end
