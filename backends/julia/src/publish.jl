# Put a trained model where backends find it, as a version that never changes: what `chips publish` does, from Julia.

const FORMATS = Dict(".jls" => "jls", ".jld2" => "jld2", ".json" => "json", ".onnx" => "onnx")

"It was not published; the text says why, and what to do."
struct PublishError <: Exception
    message::String
end
Base.showerror(io::IO, error::PublishError) = print(io, error.message)

"""
    publish(source; model, version, store, signature, samples, format, runtime, by, rows)

Publish `source`, a file or a folder, to `store`, a folder or gs://bucket/prefix, and return where backends find it. `signature`
and `samples` are what the manifest says of them, and `runtime` the packages that the model needs with their versions; or each the
path of a JSON file. `rows` is "together" for a model whose prediction for a row depends on the others on purpose. Those that `save_model` wrote into a folder are found there. The same again changes nothing; another content under a
published version is refused.

    publish("trained", model = "wine", version = "3", store = "gs://models")
"""
function publish(
    source;
    model,
    version,
    store,
    signature = found_in(source, "signature.json", (inputs = [], outputs = [])),
    samples = found_in(source, "samples.json", []),
    format = nothing,
    runtime = found_in(source, "runtime.json", Dict("julia" => string(VERSION))),
    by = get(ENV, "USER", "unknown"),
    rows = "independent",
    environ = ENV,
)
    rows in ("independent", "together") || throw(PublishError("rows must be \"independent\" or \"together\", not \"$rows\""))
    occursin(MODEL_NAME, model) || throw(PublishError("'$model' is no name of a model: use a-z, 0-9, - and _"))
    occursin(VERSION_NAME, version) || throw(PublishError("'$version' is no version: use letters, digits, ., - and _"))
    described = [realpath(given) for given in (signature, samples, runtime) if given isa AbstractString]
    files = filter(((_, path),) -> !(realpath(path) in described), files_of(source))
    isempty(files) && throw(PublishError("$source holds no model, only what describes one"))
    content = Dict{String,Any}(
        "schema" => 1,
        "model" => model,
        "version" => version,
        "created" => Dates.format(now(UTC), dateformat"yyyy-mm-dd\THH:MM:SS\Z"),
        "created_by" => by,
        "format" => something(format, format_of(keys(files))),
        "runtime" => given_or_read(runtime),
        "files" => [file_entry(name, path) for (name, path) in sort!(collect(files))],
        "signature" => complete_signature(given_or_read(signature)),
        "samples" => given_or_read(samples),
    )
    rows == "independent" || (content["rows"] = rows)  # what a manifest says that says nothing
    content = parse_json(encode(content))  # as it will be read
    parse_manifest(encode(content))
    place = open_store(store, environ)
    return put_version(place, content, files)
end

"The path of a file that lies in the folder, or else `otherwise`."
function found_in(source, name, otherwise)
    path = joinpath(source, name)
    return isfile(path) ? path : otherwise
end

given_or_read(given) = given isa AbstractString ? parse_json(read(given)) : parse_json(encode(given))

"A signature with what may be left out of it: a manifest says it."
complete_signature(given) = Dict(
    side => [merge(Dict{String,Any}("shape" => [-1]), tensor) for tensor in get(given, side, [])] for side in ("inputs", "outputs")
)

"The files of an artifact, by their path in it: one file, or all below a folder."
function files_of(source)
    isfile(source) && return Dict(basename(source) => source)
    isdir(source) || throw(PublishError("$source does not exist"))
    files = Dict{String,String}()
    for (folder, folders, names) in walkdir(source), name in [folders; names]
        path = joinpath(folder, name)
        islink(path) && throw(PublishError("$path is not a plain file: an artifact holds files only, no links"))
        inside = relpath(path, source)
        isfile(path) && inside != "manifest.json" && (files[inside] = path)
    end
    isempty(files) && throw(PublishError("$source holds no files"))
    return files
end

function format_of(names)
    suffixes = [lowercase(last(splitext(name))) for name in names]
    formats = unique([FORMATS[suffix] for suffix in suffixes if haskey(FORMATS, suffix)])
    length(formats) > 1 && filter!(!isequal("json"), formats)  # settings next to a model, most likely
    length(formats) == 1 || throw(PublishError("the format cannot be guessed from the files' names: name it by format"))
    return only(formats)
end

file_entry(name, path) = (path = name, bytes = filesize(path), sha256 = digest_of(path))

"A store's folder for models: here, or in a bucket."
function open_store(store, environ)
    startswith(store, "gs://") || return Folder(abspath(startswith(store, "file://") ? unescape_uri(store[8:end]) : store))
    place = open_source(store, environ)
    place isa Bucket && return place
    throw(PublishError("$store names no bucket: write gs://bucket/prefix"))
end

version_path(content) = "$(content["model"])/$(content["version"])"

manifest_bytes(content) = [encode(sorted(content), indent = 2); 0x0a]

"With the names of objects in order, so that the same content is the same text."
sorted(value::Dict) = Pair{String,Any}[name => sorted(value[name]) for name in sort!(collect(keys(value)))]
sorted(values::Vector) = Any[sorted(value) for value in values]
sorted(value) = value

"Whether both describe the same artifact, no matter who published it, and when."
function says_the_same(one, other)
    content(manifest) = filter(entry -> !(first(entry) in ("created", "created_by")), manifest)
    return encode(sorted(content(one))) == encode(sorted(content(other)))
end

"Whether the very same is published already; another content under that version is an error."
function is_published(published, content, place)
    published === nothing && return false
    says_the_same(parse_json(published), content) && return true
    throw(PublishError("$place is published already, with other content; a version never changes. Publish under a new one"))
end

function put_version(store::Folder, content, files)
    folder = joinpath(store.path, version_path(content))
    manifest = joinpath(folder, "manifest.json")
    there() = is_published(isfile(manifest) ? read(manifest) : nothing, content, folder)
    there() && return folder
    # Everything is put together next to its place and appears there in one rename, manifest and all.
    draft = joinpath(dirname(folder), ".$(basename(folder)).$(uuid4())")
    try
        mkpath(draft)
        for entry in content["files"]
            target = joinpath(draft, entry["path"])
            mkpath(dirname(target))
            cp(files[entry["path"]], target)
            unchanged(target, entry)
        end
        write(joinpath(draft, "manifest.json"), manifest_bytes(content))
        renamed = ccall(:rename, Cint, (Cstring, Cstring), draft, folder) == 0  # not where the folder is there, and not empty
        renamed || there() || throw(PublishError("$folder cannot be written"))
    finally
        rm(draft, recursive = true, force = true)
    end
    return folder
end

unchanged(path, entry) =
    digest_of(path) == entry["sha256"] ||
    throw(PublishError("$(entry["path"]) changed while it was published; publish again when it is finished"))

function put_version(store::Bucket, content, files)
    # An object is named by its content, so two who publish one version at once never write the same one.
    named(entry) = merge(entry, Dict("path" => "$(first(entry["sha256"], 16))/$(entry["path"])"))
    content = merge(content, Dict{String,Any}("files" => map(named, content["files"])))
    place = Bucket(store.name, object_name(store, version_path(content)), store.endpoint, store.token)
    there() = is_published(published_manifest(place), content, address(place))
    there() && return address(place)
    for entry in content["files"]
        path = files[last(partition(entry["path"], '/'))]
        put_object(place, entry["path"], path) ||
            same_object(place, entry) ||
            throw(PublishError("$(address(place))$(entry["path"]) is there, and is not that file: remove it"))
        unchanged(path, entry)
    end
    mktemp() do path, stream
        write(stream, manifest_bytes(content))
        close(stream)
        put_object(place, "manifest.json", path, type = JSON_TYPE) || there()
    end
    return address(place)
end

function published_manifest(place::Bucket)
    try
        return read_manifest_bytes(place)
    catch error
        error isa ArtifactError && error.exit_code == EX_NOINPUT || rethrow()
        return nothing
    end
end

"Create an object of a file's content; false where there is one already. The file is read while it is sent."
function put_object(place::Bucket, name, path; type = "application/octet-stream")
    query = "uploadType=media&ifGenerationMatch=0&name=$(escape_uri(object_name(place, name)))"
    url = "$(place.endpoint)/upload/storage/v1/b/$(escape_uri(place.name))/o?$query"
    patiently(place, name) do
        headers = ["Content-Type" => type; place.token()]
        status = ask(url, devnull, method = "POST", headers = headers, upload = path).status
        status in (200, 201) && return true
        status == 412 && return false
        status in (401, 403) &&
            throw(PublishError("no permission on $(address(place)): you need roles/storage.objectUser there ($status)"))
        status == 404 && throw(PublishError("there is no bucket $(place.name), or you may not see it"))
        throw(TransferError("the server answered $status"))
    end
end

"Whether the object that is there already has the content of `entry`."
function same_object(place::Bucket, entry)
    context = SHA.SHA256_CTX()
    read_object(bytes -> SHA.update!(context, bytes), place, entry["path"], entry["bytes"])
    return bytes2hex(SHA.digest!(context)) == entry["sha256"]
end
