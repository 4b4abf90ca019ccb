# Bring the artifact here: fetched once, checked byte for byte before any loader opens it, kept by its digest.

struct Artifact
    folder::String
    manifest::Manifest
    digest::String  # sha256:… of the manifest, which holds those of all files
    address::String
end

"An artifact in a folder of this machine: used where it is."
struct Folder
    path::String
end

address(folder::Folder) = folder.path

"""
The artifact that `config` names (at gs://bucket/prefix/, file:// or a folder), every byte of it checked. Two processes may do
this at once. Throws ArtifactError.
"""
function obtain(config::Config; environ = ENV)
    source = open_source(config.artifact, environ)
    content = read_manifest_bytes(source)
    manifest = try
        parse_manifest(content)
    catch error
        error isa ManifestError || rethrow()
        throw(ArtifactError("$(address(source)): $(error.message)", EX_DATAERR))
    end
    digest = bytes2hex(sha256(content))
    check_wanted(config, manifest, "sha256:$digest", address(source))
    folder = bring(source, manifest, joinpath(config.cache_dir, manifest.model, digest))
    return Artifact(folder, manifest, "sha256:$digest", address(source))
end

function check_wanted(config::Config, manifest::Manifest, digest, address)
    model, version = something(config.model, manifest.model), something(config.version, manifest.version)
    (manifest.model, manifest.version) == (model, version) || throw(
        ArtifactError(
            "$address is $(manifest.model)@$(manifest.version), but CHIPS_MODEL and CHIPS_VERSION say " *
            "$model@$version: correct one of them",
            EX_DATAERR,
        ),
    )
    config.artifact_digest in (nothing, digest) || throw(
        ArtifactError(
            "the manifest at $address has the digest $digest, but CHIPS_ARTIFACT_DIGEST says " *
            "$(config.artifact_digest): it is not what was released, so nothing of it is loaded",
            EX_DATAERR,
        ),
    )
end

function open_source(given, environ)
    scheme, separator, rest = let found = match(r"^([A-Za-z][A-Za-z0-9+.-]*)://(.*)\z"s, given)
        found === nothing ? ("", "", given) : (lowercase(found[1]), "://", found[2])
    end
    isempty(scheme) && return Folder(rest)
    host, _, path = partition(rest, '/')
    scheme == "file" && return Folder("/" * unescape_uri(path))
    scheme == "gs" && !isempty(host) && return Bucket(host, strip(path, '/'), environ)
    throw(ArtifactError("CHIPS_ARTIFACT=$given: use gs://bucket/prefix/, file:// or a folder", EX_NOINPUT))
end

function read_manifest_bytes(folder::Folder)
    path = joinpath(folder.path, "manifest.json")
    ispath(path) ||
        throw(ArtifactError("there is no $path: is CHIPS_ARTIFACT right, and has the version been published?", EX_NOINPUT))
    try
        return read(path)
    catch error
        error isa Union{SystemError,Base.IOError} || rethrow()
        throw(ArtifactError("$path cannot be read: $(reason(error))", EX_NOPERM))
    end
end

function bring(source::Folder, manifest::Manifest, folder)
    is_laid_out(source, manifest) || return bring_to(folder, source, manifest)
    for file in manifest.files
        check(file, joinpath(source.path, place(file)))
    end
    return source.path
end

"Whether the files lie as the model wants them; not so where a bucket was copied as it was (KServe does)."
is_laid_out(source::Folder, manifest::Manifest) =
    all(file -> place(file) == file.path || isfile(joinpath(source.path, place(file))), manifest.files)

function check(file::ArtifactFile, path)
    digest = try
        digest_of(path)
    catch error
        error isa Union{SystemError,Base.IOError} || rethrow()
        throw(ArtifactError("$path cannot be read: $(reason(error))", EX_NOPERM))
    end
    digest === nothing &&
        throw(ArtifactError("$path is missing, though the manifest lists it: publish the model again", EX_NOINPUT))
    digest == file.sha256 || throw(mismatch(path, file))
end

function fetch_file(source::Folder, file::ArtifactFile, target, progress)
    path = joinpath(source.path, file.path)
    check(file, path)
    symlink(abspath(path), target)
    progress(file.bytes)
end

bring(source::Bucket, manifest::Manifest, folder) = bring_to(folder, source, manifest)

"The artifact in the cache, fetched unless it is there."
function bring_to(folder, source, manifest::Manifest)
    try
        mkpath(dirname(folder))
        with_lock(folder * ".lock") do
            is_whole(folder, manifest) || fetch_all(source, manifest, folder)
        end
    catch error
        error isa Union{SystemError,Base.IOError} || rethrow()
        throw(disk_error(error, dirname(dirname(folder))))
    end
    return folder
end

"Whether the cache holds every file as it should be. Looked at each start: a serialized object is code."
function is_whole(folder, manifest::Manifest)
    isdir(folder) || return false
    all(file -> digest_of(joinpath(folder, place(file))) == file.sha256, manifest.files) && return true
    rm(folder, recursive = true)
    return false
end

function fetch_all(source, manifest::Manifest, folder)
    remove_leftovers(folder)
    draft = joinpath(dirname(folder), ".$(basename(folder)).$(uuid4())")
    progress = Progress(sum(Int[file.bytes for file in manifest.files]))
    try
        mkpath(draft)
        for file in manifest.files
            target = joinpath(draft, place(file))
            mkpath(dirname(target))
            fetch_file(source, file, target, count -> advance!(progress, count))
        end
        systemerror("rename", ccall(:rename, Cint, (Cstring, Cstring), draft, folder) != 0)
    finally
        rm(draft, recursive = true, force = true)
    end
end

"Drafts of processes that were killed; we hold the lock, so nobody is at work on one."
function remove_leftovers(folder)
    for name in readdir(dirname(folder))
        startswith(name, ".$(basename(folder)).") && rm(joinpath(dirname(folder), name), recursive = true, force = true)
    end
end

"Hold a lock between processes, which the system lets go whatever becomes of us."
function with_lock(action, path)
    open(path, "w") do stream
        exclusive_at_once = 2 | 4  # LOCK_EX | LOCK_NB; to wait in the call would hold up a thread
        while ccall(:flock, Cint, (Cint, Cint), fd(stream), exclusive_at_once) != 0
            Libc.errno() in (Libc.EAGAIN, Libc.EINTR) || throw(SystemError("flock"))
            sleep(0.05)
        end
        action()
    end
end

"SHA-256 of a file, read in blocks; nothing where there is none."
function digest_of(path)
    isfile(path) || return nothing
    context = SHA.SHA256_CTX()
    block = Vector{UInt8}(undef, BLOCK_BYTES)
    open(path) do stream
        while (count = readbytes!(stream, block, BLOCK_BYTES)) > 0
            SHA.update!(context, block, count)
            yield()  # others may have to answer meanwhile
        end
    end
    return bytes2hex(SHA.digest!(context))
end

mismatch(place, file::ArtifactFile) = ArtifactError(
    "$place is not the file that was published: its SHA-256 is not $(first(file.sha256, 12))… as the manifest says. " *
    "It is not loaded. Publish the model again under a new version.",
    EX_DATAERR,
)

number_of(error::SystemError) = Int(error.errnum)
number_of(error::Base.IOError) = -Int(error.code)

reason(error::SystemError) = Libc.strerror(error.errnum)
reason(error::Base.IOError) = error.msg

function disk_error(error, cache_dir)
    number_of(error) in (Libc.ENOSPC, Libc.EDQUOT) && return ArtifactError(
        "the disk with $cache_dir is full: give it more room (on Cloud Run the disk is memory) " *
        "or name another folder in CHIPS_CACHE_DIR",
        EX_IOERR,
    )
    number_of(error) in (Libc.EACCES, Libc.EPERM, Libc.EROFS) &&
        return ArtifactError("no permission to write $cache_dir: name another folder in CHIPS_CACHE_DIR", EX_NOPERM)
    return ArtifactError("$cache_dir cannot be used: $(reason(error))", EX_IOERR)
end

"One log line each ten percent."
mutable struct Progress
    total::Int
    done::Int
end
Progress(total) = Progress(max(total, 1), 0)

function advance!(progress::Progress, count)
    before = progress.done * 10 ÷ progress.total
    progress.done += count
    tenth = progress.done * 10 ÷ progress.total
    tenth > before && @info "fetched $(tenth * 10) % of the artifact" fetched_bytes = progress.done
end
