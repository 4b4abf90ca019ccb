using .Backend: PublishError, publish
using .Backend.StrictJSON: encode, parse_json

function model_file(content = "abc")
    path = joinpath(mktempdir(), "model.jls")
    write(path, content)
    return path
end

complaint_of(action) =
    try
        action()
        ""
    catch error
        error isa PublishError || rethrow()
        error.message
    end

@testset "a published version is what backends read" begin
    store = mktempdir()
    samples = [(request = (a = 1,), response = (b = 2,))]
    place = publish(model_file(), model = "wine", version = "3", store = store, by = "ana", samples = samples)
    @test place == joinpath(store, "wine", "3")
    manifest = parse_json(read(joinpath(place, "manifest.json")))
    @test (manifest["schema"], manifest["format"], manifest["created_by"], manifest["runtime"]) ==
          (1, "jls", "ana", Dict("julia" => string(VERSION)))
    @test take_from(place).folder == place
    @test sort(readdir(place)) == ["manifest.json", "model.jls"]
    @test readdir(joinpath(store, "wine")) == ["3"]
end

@testset "a version never changes" begin
    store = mktempdir()
    again(content, by) = publish(model_file(content), model = "wine", version = "3", store = store, by = by)
    place = again("abc", "ana")
    before = read(joinpath(place, "manifest.json"))
    @test again("abc", "bob") == place
    @test read(joinpath(place, "manifest.json")) == before
    @test occursin("never changes", complaint_of(() -> again("abx", "ana")))
    @test read(joinpath(place, "model.jls"), String) == "abc"
end

@testset "a folder with all its files" begin
    folder = mktempdir()
    mkpath(joinpath(folder, "more"))
    write(joinpath(folder, "more", "table.json"), "{}")
    write(joinpath(folder, "model.jld2"), "x")
    place = publish(folder, model = "wine", version = "3", store = mktempdir())
    listed = parse_json(read(joinpath(place, "manifest.json")))["files"]
    @test [file["path"] for file in listed] == ["model.jld2", "more/table.json"]
    symlink("/etc/passwd", joinpath(folder, "link"))
    @test occursin("not a plain file", complaint_of(() -> publish(folder, model = "wine", version = "4", store = mktempdir())))
end

@testset "a model that ranks rows is published as such" begin
    rows_of(; more...) =
        let place = publish(model_file(), model = "wine", version = "3", store = mktempdir(); more...)
            get(parse_json(read(joinpath(place, "manifest.json"))), "rows", nothing)
        end
    @test (rows_of(), rows_of(rows = "together")) == (nothing, "together")
    @test occursin("rows must be", complaint_of(() -> rows_of(rows = "apart")))
end

@testset "what cannot be published is said" begin
    attempt(; source = model_file(), model = "wine", version = "3", store = mktempdir()) =
        complaint_of(() -> publish(source, model = model, version = version, store = store))
    @test occursin("no name of a model", attempt(model = "Wine"))
    @test occursin("no version", attempt(version = "../x"))
    @test occursin("does not exist", attempt(source = "/nowhere"))
    @test occursin("holds no files", attempt(source = mktempdir()))
    @test occursin("cannot be guessed", attempt(source = @__FILE__))
end

@testset "a folder that save_model wrote describes itself" begin
    folder, store = mktempdir(), mktempdir()
    write(joinpath(folder, "model.jls"), "abc")
    write(joinpath(folder, "signature.json"), "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP64\"}],\"outputs\":[]}")
    write(joinpath(folder, "samples.json"), "[{\"request\":{\"a\":1},\"response\":{\"b\":2}}]")
    write(joinpath(folder, "runtime.json"), "{\"julia\":\"1.10.8\",\"GLM\":\"1.9.0\"}")
    place = publish(folder, model = "wine", version = "3", store = store, by = "ana")
    manifest = parse_json(read(joinpath(place, "manifest.json")))
    @test (only(manifest["signature"]["inputs"])["name"], only(manifest["samples"])["request"]) == ("x", Dict("a" => 1))
    @test manifest["runtime"] == Dict("julia" => "1.10.8", "GLM" => "1.9.0")
    @test sort(readdir(place)) == ["manifest.json", "model.jls"]
    rm(joinpath(folder, "model.jls"))
    @test occursin("holds no model", complaint_of(() -> publish(folder, model = "wine", version = "4", store = store)))
end
