using .Backend: ArtifactError, Config, TransferError, obtain, open_source, patiently, with_lock
using SHA: sha256

digest(content) = bytes2hex(sha256(content))

"A folder with an artifact of one file, which holds `content` but for what `written` says."
function artifact_folder(content = "abc"; written = content, prefix = "")
    folder = mktempdir()
    mkpath(joinpath(folder, prefix))
    write(joinpath(folder, prefix * "model.jls"), written)
    file = Dict("path" => prefix * "model.jls", "bytes" => sizeof(content), "sha256" => digest(content))
    manifest = Dict("schema" => 1, "model" => "wine", "version" => "3", "format" => "jls", "files" => [file])
    write(joinpath(folder, "manifest.json"), Backend.encode(manifest))
    return folder
end

refusal(action) =
    try
        action()
        nothing
    catch error
        error isa ArtifactError || rethrow()
        error
    end
take_from(place; model = "wine", version = "3", digest = nothing) = obtain(
    Config(artifact = place, cache_dir = mktempdir(), model = model, version = version, artifact_digest = digest),
    environ = Dict{String,String}(),
)

@testset "a folder is used where it is" begin
    folder = artifact_folder()
    artifact = take_from(folder)
    @test artifact.folder == folder
    @test artifact.digest == "sha256:" * digest(read(joinpath(folder, "manifest.json")))
    @test take_from(folder, model = nothing, version = nothing, digest = artifact.digest).manifest.model == "wine"
    @test take_from("file://" * replace(folder, "j" => "%6a")).folder == folder
end

@testset "a bucket's folder that was copied as it was is laid out in the cache" begin
    copied = artifact_folder(prefix = first(digest("abc"), 16) * "/")
    artifact = take_from(copied)
    @test artifact.folder != copied && read(joinpath(artifact.folder, "model.jls"), String) == "abc"
    write(joinpath(copied, first(digest("abc"), 16), "model.jls"), "abx")
    @test refusal(() -> take_from(copied)).exit_code == 65
end

@testset "what is not what was published is refused" begin
    corrupt = refusal(() -> take_from(artifact_folder(written = "abx")))
    @test corrupt.exit_code == 65 && occursin("is not the file that was published", corrupt.message)
    @test refusal(() -> take_from(artifact_folder(written = "ab"))).exit_code == 65
    @test refusal(() -> take_from(artifact_folder(), version = "4")).exit_code == 65
    @test occursin("correct one of them", refusal(() -> take_from(artifact_folder(), model = "beer")).message)
    @test occursin("not what was released", refusal(() -> take_from(artifact_folder(), digest = "sha256:" * "0" ^ 64)).message)
    gone = artifact_folder()
    rm(joinpath(gone, "model.jls"))
    @test refusal(() -> take_from(gone)).exit_code == 66
    @test refusal(() -> take_from(mktempdir())).exit_code == 66
    broken = artifact_folder()
    write(joinpath(broken, "manifest.json"), "{")
    @test refusal(() -> take_from(broken)).exit_code == 65
end

@testset "a place that is none is refused" begin
    for place in ("s3://bucket/x", "gs://", "gs:///x", "http://x/y")
        @test refusal(() -> take_from(place)).exit_code == 66
    end
    bucket = open_source("gs://models/a/wine/3/", Dict("STORAGE_EMULATOR_HOST" => "localhost:1/"))
    @test (bucket.name, bucket.prefix, bucket.endpoint) == ("models", "a/wine/3", "http://localhost:1")
    @test Backend.object_url(bucket, "x y/ü.jls") == "http://localhost:1/storage/v1/b/models/o/a%2Fwine%2F3%2Fx%20y%2F%C3%BC.jls"
    @test open_source("gs://models", Dict{String,String}()).prefix == ""
end

@testset "who asks" begin
    named = open_source("gs://b/p", Dict("CLOUDSDK_AUTH_ACCESS_TOKEN" => "secret"))
    @test named.token() == ["Authorization" => "Bearer secret"]
    @test named.endpoint == "https://storage.googleapis.com"
    @test isempty(open_source("gs://b/p", Dict("STORAGE_EMULATOR_HOST" => "http://x")).token())
    nobody = refusal(open_source("gs://b/p", Dict("GCE_METADATA_HOST" => "127.0.0.1:1")).token)
    @test nobody.exit_code == 77 && occursin("gcloud auth print-access-token", nobody.message)
end

@testset "patience ends, but not while there is progress" begin
    bucket = open_source("gs://b/p", Dict("STORAGE_EMULATOR_HOST" => "http://x"))
    calls, size = Ref(0), Ref(0)
    give_up = with_logger(NullLogger()) do
        refusal(() -> patiently(() -> (calls[] += 1; throw(TransferError("no"))), bucket, "m"; first_delay_s = 0.0))
    end
    @test (calls[], give_up.exit_code) == (6, 69)
    slow() = (size[] += 1; size[] < 20 ? throw(TransferError("slow")) : :done)
    @test with_logger(() -> patiently(slow, bucket, "m"; progress = () -> size[], first_delay_s = 0.0), NullLogger()) == :done
end

@testset "one at a time holds a lock" begin
    path = joinpath(mktempdir(), "x.lock")
    inside, most = Ref(0), Ref(0)
    @sync for _ in 1:4
        @async with_lock(path) do
            inside[] += 1
            most[] = max(most[], inside[])
            yield()
            inside[] -= 1
        end
    end
    @test most[] == 1
end

@testset "what a disk has against it is said" begin
    known = ((Libc.ENOSPC, 74, "is full"), (Libc.EACCES, 77, "no permission"), (Libc.EIO, 74, "cannot be used"))
    for (number, code, words) in known
        for error in (SystemError("write", number), Base.IOError("x", -number))
            found = Backend.disk_error(error, "/cache")
            @test found.exit_code == code && occursin(words, found.message) && occursin("/cache", found.message)
        end
    end
end
