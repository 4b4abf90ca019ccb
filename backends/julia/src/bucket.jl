# An artifact in Cloud Storage, by its JSON API.

const ATTEMPTS = 6  # without any progress
const FIRST_DELAY_S = 0.2
const LONGEST_DELAY_S = 10.0
const BLOCK_BYTES = 1 << 18
const SMALLEST_PIECE_BYTES = 1 << 20
const LARGEST_PIECE_BYTES = 1 << 22

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

object_url(
    bucket::Bucket,
    path,
) = "$(bucket.endpoint)/storage/v1/b/$(escape_uri(bucket.name))/o/$(escape_uri(object_name(bucket, path)))"

function metadata_token(host)
    url = "http://$host/computeMetadata/v1/instance/service-accounts/default/token"
    content = IOBuffer()
    status = try
        ask(url, content; headers = ["Metadata-Flavor" => "Google"], proxy = false).status
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
    return Headers(["Authorization" => "Bearer $(parse_json(take!(content))["access_token"])"])
end

function read_manifest_bytes(bucket::Bucket)
    content = IOBuffer()
    patiently(bucket, "manifest.json") do
        truncate(content, 0)
        reply = get_object(bucket, "manifest.json", content)
        isempty(reply.broken) || throw(TransferError(reply.broken))
    end
    return take!(content)
end

"Write an object's content to `output`; what is no content becomes an error in our words."
function get_object(bucket::Bucket, path, output; headers = Headers(), generation = "")
    precondition = isempty(generation) ? "" : "&ifGenerationMatch=$generation"
    # To take gzip, and not to unpack it, is to get the bytes as they are stored.
    headers = [headers; bucket.token(); "Accept-Encoding" => "gzip"]
    reply = ask("$(object_url(bucket, path))?alt=media$precondition", output; headers = headers)
    reply.status in (200, 206) && return reply
    reply.status in (404, 412) && throw(
        ArtifactError(
            "$(address(bucket))$path is not there: is CHIPS_ARTIFACT right, and has the version been published?",
            EX_NOINPUT,
        ),
    )
    reply.status in (401, 403) && throw(
        ArtifactError(
            "no permission to read $(address(bucket))$path: give this service's account " *
            "roles/storage.objectViewer on the bucket ($(reply.status))",
            EX_NOPERM,
        ),
    )
    throw(TransferError("the server answered $(reply.status)"))
end

"So many that each ten percent of the object shows in the log, and no more than its memory allows."
piece_bytes(size) = clamp(size ÷ 16, SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES)

"""
Give an object's content to `take(bytes)` in order, piece by piece: Downloads holds in memory what is not written yet. What broke
off goes on from there, of the same generation: another one would not fit.
"""
function read_object(take, bucket::Bucket, path, size)
    piece, done, generation = IOBuffer(), 0, ""
    longest = piece_bytes(size)
    patiently(bucket, path, progress = () -> done) do
        while true
            truncate(piece, 0)
            is_part = done > 0 || size > longest
            range = is_part ? Headers(["Range" => "bytes=$done-$(min(done + longest, size) - 1)"]) : Headers()
            reply = get_object(bucket, path, piece; headers = range, generation = generation)
            is_part && reply.status == 200 && throw(TransferError("the server does not send parts"))
            generation = header(reply.headers, "x-goog-generation", "")
            bytes = @view piece.data[1:piece.size]
            total = tryparse(Int, last(split(header(reply.headers, "content-range", ""), '/')))
            done + length(bytes) <= size && something(total, size) == size ||
                throw(ArtifactError("an object is not as large as its manifest says: publish the model again", EX_DATAERR))
            take(bytes)
            done += length(bytes)
            isempty(reply.broken) || throw(TransferError(reply.broken))
            done == size && return
            GC.gc(false)  # Downloads leaves the bytes of each piece behind; on Cloud Run memory is what the artifact itself needs
            isempty(bytes) && throw(TransferError("the answer ended early"))
            is_part || throw(TransferError("the answer ended early"))
        end
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
    digest = SHA.SHA256_CTX()
    open(target, "w") do stream
        read_object(bucket, file.path, file.bytes) do bytes
            write(stream, bytes)
            SHA.update!(digest, bytes)
            progress(length(bytes))
        end
        flush(stream)
        systemerror("fsync", ccall(:fsync, Cint, (Cint,), fd(stream)) != 0)
    end
    bytes2hex(SHA.digest!(digest)) == file.sha256 || throw(mismatch(address(bucket) * file.path, file))
end
