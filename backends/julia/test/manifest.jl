using .Backend: Manifest, ManifestError, main_file, parse_manifest

const SOME = "ab" ^ 32

manifest_json(; changes...) = Backend.encode(
    merge(
        Dict{String,Any}(
            "schema" => 1,
            "model" => "wine",
            "version" => "3",
            "format" => "jls",
            "runtime" => Dict("julia" => "1.10.8"),
            "files" => [Dict("path" => "model.jls", "bytes" => 3, "sha256" => SOME)],
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
    stored = parse_manifest(manifest_json(files = [Dict("path" => "$(SOME[1:16])/a/m.jls", "bytes" => 1, "sha256" => SOME)]))
    @test main_file(stored, ".jls") == "a/m.jls"
end

@testset "what is wrong is said with its place" begin
    @test occursin("schema must be 1", complaint(manifest_json(schema = 2)))
    @test occursin("at \$.files[0].bytes", complaint(manifest_json(files = [Dict("path" => "a", "bytes" => "1", "sha256" => "")])))
    @test occursin("the field sha256 is missing", complaint(manifest_json(files = [Dict("path" => "a", "bytes" => 1)])))
    @test occursin("cannot be read", complaint(Vector{UInt8}("[")))
    @test occursin("expected an object", complaint(Vector{UInt8}("[]")))
end

@testset "what cannot be true is refused" begin
    file(; changes...) = merge(Dict("path" => "a", "bytes" => 1, "sha256" => SOME), Dict(string(n) => v for (n, v) in changes))
    input(name, type = "FP64") = Dict("name" => name, "datatype" => type)
    @test occursin("no model and version", complaint(manifest_json(model = "Wine")))
    @test occursin("a file twice", complaint(manifest_json(files = [file(), file(path = "$(SOME[1:16])/a")])))
    @test occursin("no valid size", complaint(manifest_json(files = [file(sha256 = "AB" ^ 32)])))
    @test occursin("no valid size", complaint(manifest_json(files = [file(bytes = -1)])))
    @test occursin("unknown datatype", complaint(manifest_json(signature = Dict("inputs" => [input("x", "FP65")]))))
    @test occursin("one name", complaint(manifest_json(signature = Dict("inputs" => [input("x"), input("x")]))))
    @test occursin("one name", complaint(manifest_json(signature = Dict("outputs" => [input("x"), input("x")]))))
    for (type, categories, words) in (
        ("BYTES", [], "empty list"),
        ("FP64", [1], "which has none"),
        ("BYTES", [1], "its datatype"),
        ("INT8", [300], "its datatype"),
        ("BYTES", ["a", "a"], "twice"),
    )
        one = merge(Dict{String,Any}(input("x", type)), Dict("categories" => categories))
        @test occursin(words, complaint(manifest_json(signature = Dict("inputs" => [one]))))
    end
end

@testset "a path that leaves the artifact is refused" begin
    for path in ("/etc/passwd", "../x", "a/../../x", "", ".", "a//b", "a\\b", "a\0b")
        files = [Dict("path" => path, "bytes" => 1, "sha256" => "")]
        @test occursin("outside of the artifact", complaint(manifest_json(files = files)))
    end
end
