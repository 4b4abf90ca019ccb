using .Backend: Manifest, ManifestError, main_file, parse_manifest

manifest_json(; changes...) = Backend.encode(
    merge(
        Dict{String,Any}(
            "schema" => 1, "model" => "wine", "version" => "3", "format" => "jls", "runtime" => Dict("julia" => "1.5.3"),
            "files" => [Dict("path" => "model.jls", "bytes" => 3, "sha256" => "ab")],
            "signature" => Dict("inputs" => [Dict("name" => "x", "datatype" => "FP64")]),
            "samples" => [Dict("request" => Dict(), "response" => Dict())],
        ),
        Dict{String,Any}(string(name) => value for (name, value) in changes),
    ),
)
complaint(content) =
    try
        parse_manifest(content)
        ""
    catch error
        error isa ManifestError || rethrow()
        error.message
    end

@testset "what may be left out has a default" begin
    manifest = parse_manifest(manifest_json())
    @test manifest.signature.inputs[1].shape == [-1] && isempty(manifest.signature.outputs)
    @test manifest.samples[1].tolerance == 1e-6
    @test main_file(manifest, ".jls") == "model.jls"
    @test_throws ArgumentError main_file(manifest, ".jld2")
end

@testset "what is wrong is said with its place" begin
    @test occursin("schema must be 1", complaint(manifest_json(schema = 2)))
    @test occursin("at \$.files[0].bytes", complaint(manifest_json(files = [Dict("path" => "a", "bytes" => "1", "sha256" => "")])))
    @test occursin("the field sha256 is missing", complaint(manifest_json(files = [Dict("path" => "a", "bytes" => 1)])))
    @test occursin("cannot be read", complaint(Vector{UInt8}("[")))
    @test occursin("expected an object", complaint(Vector{UInt8}("[]")))
end

@testset "a path that leaves the artifact is refused" begin
    for path in ("/etc/passwd", "../x", "a/../../x", "", ".", "a\\b", "a\0b")
        files = [Dict("path" => path, "bytes" => 1, "sha256" => "")]
        @test occursin("outside of the artifact", complaint(manifest_json(files = files)))
    end
end
