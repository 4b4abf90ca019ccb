# An artifact in Cloud Storage, by its JSON API.

const ATTEMPTS = 6  # without any progress
const FIRST_DELAY_S = 0.2
const LONGEST_DELAY_S = 10.0
const BLOCK_BYTES = 1 << 18

# sysexits.h
const EX_DATAERR = 65
const EX_NOINPUT = 66
const EX_UNAVAILABLE = 69
const EX_SOFTWARE = 70
const EX_OSERR = 71
const EX_IOERR = 74
const EX_NOPERM = 77
const EX_CONFIG = 78

"The artifact cannot be had, or is not what it should be. The text says which object, and what to do."
struct ArtifactError <: Exception
    message::String
    exit_code::Int
end
Base.showerror(io::IO, error::ArtifactError) = print(io, error.message)

struct Bucket
    name::String
    prefix::String
    endpoint::String
    token::Any  # called for the headers that say who asks
end

"""
The bucket's folder, at Google, or at the server that `STORAGE_EMULATOR_HOST` names. Who asks is the service's own account, by
the metadata server; `CLOUDSDK_AUTH_ACCESS_TOKEN`, gcloud's own name for a token, stands in for it on a laptop.
"""
function Bucket(name, prefix, environ)
    emulator = get(environ, "STORAGE_EMULATOR_HOST", "")
    token = get(environ, "CLOUDSDK_AUTH_ACCESS_TOKEN", "")
    metadata = get(environ, "GCE_METADATA_HOST", "")
    endpoint = isempty(emulator) ? "https://storage.googleapis.com" : occursin("://", emulator) ? emulator : "http://$emulator"
    credentials = if !isempty(token)
        () -> Headers(["Authorization" => "Bearer $token"])
    elseif isempty(emulator) || !isempty(metadata)
        () -> metadata_token(something(nonempty(metadata), "metadata.google.internal"))
    else
        () -> Headers()
    end
    return Bucket(name, prefix, rstrip(endpoint, '/'), credentials)
end

address(bucket::Bucket) = "gs://$(bucket.name)/$(isempty(bucket.prefix) ? "" : bucket.prefix * "/")"

object_name(bucket::Bucket, path) = isempty(bucket.prefix) ? path : "$(bucket.prefix)/$path"

object_url(bucket::Bucket, path) =
    "$(bucket.endpoint)/storage/v1/b/$(escape_uri(bucket.name))/o/$(escape_uri(object_name(bucket, path)))"

function metadata_token(host)
    url = "http://$host/computeMetadata/v1/instance/service-accounts/default/token"
    status, content = try
        ask(url; headers = ["Metadata-Flavor" => "Google"], proxy = false) do status, _, body
            status, read(body)
        end
    catch error
        error isa TransferError || rethrow()
        throw(
            ArtifactError(
                "no credentials for Google Cloud: the metadata server $host does not answer ($(error.message)). Outside of " *
                "Google Cloud set CLOUDSDK_AUTH_ACCESS_TOKEN to what `gcloud auth print-access-token` prints",
                EX_NOPERM,
            ),
        )
    end
    status in (429, 500, 502, 503, 504) && throw(TransferError("the metadata server answered $status"))
    status == 200 || throw(ArtifactError("this service has no account: the metadata server answered $status", EX_NOPERM))
    return Headers(["Authorization" => "Bearer $(parse_json(content)["access_token"])"])
end

function read_manifest_bytes(bucket::Bucket)
    patiently(bucket, "manifest.json") do
        get_object(bucket, "manifest.json") do _, _, body
            read(body)
        end
    end
end

"Call `take(status, headers, body)` with an object's content; what is no content becomes an error in our words."
function get_object(take, bucket::Bucket, path; headers = Headers(), generation = "")
    precondition = isempty(generation) ? "" : "&ifGenerationMatch=$generation"
    # To take gzip without asking curl to unpack it is to get the bytes as they are stored.
    headers = [headers; bucket.token(); "Accept-Encoding" => "gzip"]
    ask("$(object_url(bucket, path))?alt=media$precondition"; headers = headers) do status, given, body
        status in (200, 206) && return take(status, given, body)
        status in (404, 412) && throw(
            ArtifactError(
                "$(address(bucket))$path is not there: is CHIPS_ARTIFACT right, and has the version been published?",
                EX_NOINPUT,
            ),
        )
        status in (401, 403) && throw(
            ArtifactError(
                "no permission to read $(address(bucket))$path: give this service's account " *
                "roles/storage.objectViewer on the bucket ($status)",
                EX_NOPERM,
            ),
        )
        throw(TransferError("the server answered $status"))
    end
end

"Do `call`, again and again where that may help, with full jitter. What brought `progress()` further was no failure."
function patiently(call, bucket::Bucket, name; progress = () -> 0, first_delay_s = FIRST_DELAY_S)
    failures, last = 0, progress()
    while true
        try
            return call()
        catch error
            error isa TransferError || rethrow()
            failures = progress() > last ? 1 : failures + 1
            last = progress()
            failures < ATTEMPTS ||
                throw(ArtifactError("$(address(bucket))$name cannot be fetched now: $(error.message)", EX_UNAVAILABLE))
            @warn "fetching $name failed and is tried again: $(error.message)"
            sleep(rand() * min(first_delay_s * 2^failures, LONGEST_DELAY_S))
        end
    end
end

"Write `file` to `target`, completely and with the right digest, or throw ArtifactError."
function fetch_file(bucket::Bucket, file::ArtifactFile, target, progress)
    sink = Sink(target, file.bytes, progress)
    generation = ""
    try
        patiently(bucket, file.path, progress = () -> sink.size) do
            # From where the last try broke off, of the very same object: another generation would not fit.
            range = sink.size == 0 ? Headers() : Headers(["Range" => "bytes=$(sink.size)-"])
            get_object(bucket, file.path; headers = range, generation = generation) do status, given, body
                generation = header(given, "x-goog-generation", "")
                status == 200 && rewind!(sink)
                take_all!(sink, body)
            end
            sink.size == file.bytes || throw(TransferError("the answer ended early"))
        end
        finish!(sink) == file.sha256 || throw(mismatch(address(bucket) * file.path, file))
    finally
        close(sink.file)
    end
end

"Takes a download: writes, hashes, counts, and refuses more than was announced."
mutable struct Sink
    path::String
    file::Base.Filesystem.File
    limit::Int
    size::Int
    digest::SHA.SHA256_CTX
    progress::Any
end

function Sink(path, limit, progress)
    flags = Base.Filesystem.JL_O_WRONLY | Base.Filesystem.JL_O_CREAT | Base.Filesystem.JL_O_EXCL
    return Sink(path, Base.Filesystem.open(path, flags, 0o644), limit, 0, SHA.SHA256_CTX(), progress)
end

function rewind!(sink::Sink)
    sink.size == 0 && return
    truncate(sink.file, 0)
    seek(sink.file, 0)
    sink.progress(-sink.size)
    sink.size, sink.digest = 0, SHA.SHA256_CTX()
end

function take_all!(sink::Sink, body)
    block = Vector{UInt8}(undef, BLOCK_BYTES)
    while (count = readbytes!(body, block, BLOCK_BYTES)) > 0
        sink.size + count <= sink.limit ||
            throw(ArtifactError("an object is larger than its manifest says: publish the model again", EX_DATAERR))
        GC.@preserve block unsafe_write(sink.file, pointer(block), UInt(count))
        SHA.update!(sink.digest, block, count)
        sink.size += count
        sink.progress(count)
    end
end

"Everything is on the disk; the digest of it."
function finish!(sink::Sink)
    systemerror("fsync", ccall(:fsync, Cint, (RawFD,), sink.file.handle) != 0)
    # The last write may have found no room for all of it and said nothing.
    filesize(sink.path) == sink.size || throw(SystemError("write", Libc.ENOSPC))
    return bytes2hex(SHA.digest!(sink.digest))
end
