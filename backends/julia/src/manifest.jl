# The manifest of an artifact, as `chips publish` writes it.

"One input or output; the first dimension is the row, -1 is any length. `categories` are all values it may have, in order."
struct Tensor
    name::String
    datatype::String
    shape::Vector{Int}
    categories::Union{Vector{Any},Nothing}
    texts::Union{Dict{String,String},Nothing}  # the categories again, to look values up in
    numbers::Union{Set{Int128},Nothing}
    function Tensor(name, datatype, shape, categories = nothing)
        found = something(categories, [])
        texts = Dict(text => text for text in found if text isa String)
        numbers = Set(Int128(number) for number in found if number isa Integer && abs(number) < big(2)^64)
        without_any = categories === nothing
        return new(name, datatype, shape, categories, without_any ? nothing : texts, without_any ? nothing : numbers)
    end
end

struct Signature
    inputs::Vector{Tensor}
    outputs::Vector{Tensor}
end

struct ArtifactFile
    path::String  # where it lies in the store
    bytes::Int
    sha256::String
end

"Its path in the artifact: what was put before it, to name objects by their content, is left out."
function place(file::ArtifactFile)
    prefix = first(file.sha256, 16) * "/"
    return startswith(file.path, prefix) ? file.path[(length(prefix)+1):end] : file.path
end

struct Sample
    request::Dict{String,Any}
    response::Dict{String,Any}
    tolerance::Float64
end

struct Manifest
    model::String
    version::String
    format::String
    files::Vector{ArtifactFile}
    runtime::Dict{String,String}
    signature::Signature
    samples::Vector{Sample}
    rows::String
end

"The text says what is wrong with a manifest."
struct ManifestError <: Exception
    message::String
end
Base.showerror(io::IO, error::ManifestError) = print(io, error.message)

"Read a manifest. A path that leaves the artifact's folder is wrong."
function parse_manifest(content::Vector{UInt8})
    manifest = try
        read_manifest(parse_json(content, is_unique = false))
    catch error
        error isa Union{JSONError,ManifestError} || rethrow()
        throw(ManifestError("its manifest.json cannot be read: $(sprint(showerror, error))"))
    end
    wrong = first_problem(manifest)
    isempty(wrong) || throw(ManifestError("its manifest.json is wrong: $wrong"))
    return manifest
end

function first_problem(manifest::Manifest)
    occursin(MODEL_NAME, manifest.model) && manifest.model != "v2" && occursin(VERSION_NAME, manifest.version) ||
        return "'$(printable(manifest.model))@$(printable(manifest.version))' is no model and version"
    isempty(manifest.format) && return "its format is empty"
    manifest.rows in ("independent", "together") || return "rows are neither independent nor together"
    wrong = wrong_files(manifest.files)
    isempty(wrong) || return wrong
    for tensor in [manifest.signature.inputs; manifest.signature.outputs]
        is_datatype(tensor.datatype) ||
            return "'$(printable(tensor.name))' has the unknown datatype '$(printable(tensor.datatype))'"
        isempty(tensor.name) && return "an input or output has no name"
        wrong = wrong_categories(tensor)
        isempty(wrong) || return "the categories of '$(printable(tensor.name))' $wrong"
        all(>=(-1), tensor.shape) || return "'$(printable(tensor.name))' has a shape with a size below -1"
    end
    all(sample -> sample.tolerance >= 0, manifest.samples) || return "a tolerance is below zero"
    allunique([output.name for output in manifest.signature.outputs]) || return "two outputs have one name"
    return allunique([input.name for input in manifest.signature.inputs]) ? "" : "two inputs have one name"
end

function wrong_categories(tensor::Tensor)
    tensor.categories === nothing && return ""
    isempty(tensor.categories) && return "are an empty list"
    haskey(INTEGERS, tensor.datatype) || tensor.datatype == "BYTES" || return "stand at $(tensor.datatype), which has none"
    all(value -> isempty(fault(value, tensor.datatype)), tensor.categories) ||
        return "are not all of its datatype, $(tensor.datatype)"
    return allunique(tensor.categories) ? "" : "name a value twice"
end

function wrong_files(files)
    isempty(files) && return "it names no files"
    for file in files
        stays_inside(file.path) || return "it names '$(printable(file.path))', which lies outside of the artifact"
        occursin(r"^[0-9a-f]{64}\z", file.sha256) && 0 <= file.bytes < 2^53 ||
            return "$(printable(file.path)) has no valid size and SHA-256"
    end
    places = map(place, files)
    "manifest.json" in places && return "it names manifest.json, which is itself"
    allunique(places) || return "it names a file twice"
    taken = Set(places)
    for path in places
        parts = split(path, '/')
        any(count -> join(parts[1:count], '/') in taken, 1:(length(parts)-1)) &&
            return "'$(printable(path))' lies below another file"
    end
    return ""
end

"A text from a manifest, as it may stand in a message: short, and without what a terminal obeys."
printable(text) = escape_string(first(text, 200))

is_control(c) = c < ' ' || '\x7f' <= c <= '\u9f'
stays_inside(path) = !any(in(("", ".", "..")), split(path, '/')) && !any(c -> c == '\\' || is_control(c), path)

function read_manifest(given)
    field(given, "schema", Int64, "\$") == 1 || throw(ManifestError("schema must be 1 - at \$.schema"))
    foreach(name -> field(given, name, String, "\$", ""), ("created", "created_by"))
    field(given, "pure", Bool, "\$", false)  # for the gateway: a request may be sent twice
    return Manifest(
        field(given, "model", String, "\$"),
        field(given, "version", String, "\$"),
        field(given, "format", String, "\$"),
        each(read_file, given, "files", "\$"),
        Dict{String,String}(
            name => value isa String ? value : throw(ManifestError("expected a string - at \$.runtime.$name")) for
            (name, value) in field(given, "runtime", Dict{String,Any}, "\$", Dict{String,Any}())
        ),
        read_signature(field(given, "signature", Dict{String,Any}, "\$", Dict{String,Any}()), "\$.signature"),
        each(read_sample, given, "samples", "\$", []),
        field(given, "rows", String, "\$", "independent"),
    )
end

read_signature(given, where_) =
    Signature(each(read_tensor, given, "inputs", where_, []), each(read_tensor, given, "outputs", where_, []))

function read_tensor(given, where_)
    shape = field(given, "shape", Vector{Any}, where_, Any[-1])
    all(size -> size isa Int64, shape) || throw(ManifestError("expected whole numbers - at $where_.shape"))
    return Tensor(
        field(given, "name", String, where_),
        field(given, "datatype", String, where_),
        Vector{Int}(shape),
        get(given, "categories", nothing) === nothing ? nothing : field(given, "categories", Vector{Any}, where_),
    )
end

read_file(given, where_) =
    ArtifactFile(field(given, "path", String, where_), field(given, "bytes", Int64, where_), field(given, "sha256", String, where_))

function read_sample(given, where_)
    tolerance = field(given, "tolerance", Union{Int64,Float64}, where_, 1e-6)
    return Sample(
        field(given, "request", Dict{String,Any}, where_),
        field(given, "response", Dict{String,Any}, where_),
        Float64(tolerance),
    )
end

function field(given, name, type, where_, default = nothing)
    given isa Dict{String,Any} || throw(ManifestError("expected an object - at $where_"))
    if !haskey(given, name)
        default === nothing && throw(ManifestError("the field $name is missing - at $where_"))
        return default
    end
    given[name] isa type || throw(ManifestError("the field $name is of the wrong type - at $where_.$name"))
    return given[name]
end

each(read_one, given, name, where_, default...) = [
    read_one(item, "$where_.$name[$(index - 1)]") for
    (index, item) in enumerate(field(given, name, Vector{Any}, where_, map(Vector{Any}, default)...))
]

"The path of the one file with such a suffix."
function main_file(manifest::Manifest, suffixes...)
    found = [path for path in map(place, manifest.files) if any(suffix -> endswith(path, suffix), suffixes)]
    length(found) == 1 || throw(ArgumentError("expected one file that ends in $(join(suffixes, " or ")), found $(length(found))"))
    return first(found)
end
