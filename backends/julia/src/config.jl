# The environment a backend is started with: checked whole, before anything else happens.

const OURS = (
    "CHIPS_MODEL",
    "CHIPS_VERSION",
    "CHIPS_ARTIFACT",
    "CHIPS_ARTIFACT_DIGEST",
    "CHIPS_CACHE_DIR",
    "CHIPS_CONCURRENCY",
    "CHIPS_MAX_BODY_BYTES",
    "CHIPS_PREDICT",
)
# The gateway's own names, which stand in the same shell on a laptop. Its settings with groups have two underscores.
const THE_GATEWAYS = ["CHIPS_" * name for name in ("REGISTRY", "ARTIFACTS", "CONFIG", "DEBUG", "GATEWAY", "KEY", "TESTS_REQUIRE")]

const MODEL_NAME = r"^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\z"
const VERSION_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z"
const DIGEST = r"^sha256:[0-9a-f]{64}\z"
const ROUTE = r"^/[A-Za-z0-9._~:@/-]*\z"

"The environment is wrong; `problems` lists everything."
struct ConfigError <: Exception
    problems::Vector{String}
end
Base.showerror(io::IO, error::ConfigError) = print(io, join(error.problems, "; "))

Base.@kwdef struct Config
    artifact::String
    model::Union{String,Nothing} = nothing  # where they are not given, the manifest says what is served
    version::Union{String,Nothing} = nothing
    artifact_digest::Union{String,Nothing} = nothing
    port::Int = 8080
    cache_dir::String = joinpath(tempdir(), "chips")
    concurrency::Int = 1
    max_body_bytes::Int = 31 * 1024 * 1024
    predict_route::String = ""  # Vertex AI's own paths, next to the contract's
    health_route::String = ""
    predict::String = ""  # a file with code around the model, instead of parts of src/predict.jl
    project::String = ""
    service::String = ""
    revision::String = ""
end

"Read the environment; ConfigError lists everything that is wrong with it. `capacity` predictions can run at once."
function read_config(environ; capacity = 1)
    problems = unknown_names(environ)
    found(names) = something(findfirst(name -> !isempty(get(environ, name, "")), names), 1)
    function text(names...; pattern = r"")
        name = names[found(names)]
        value = get(environ, name, "")
        isempty(value) || occursin(pattern, value) || push!(problems, "$name='$(first(value, 80))' is not allowed there")
        return value
    end
    function number(names...; default, least, most)
        name = names[found(names)]
        value = get(environ, name, "")
        isempty(value) && return default
        given = occursin(r"^[0-9]{1,12}\z", value) ? parse(Int, value) : -1
        least <= given <= most && return given
        push!(problems, "$name='$(first(value, 80))' is not a whole number from $least to $most")
        return default
    end
    artifact = text("CHIPS_ARTIFACT", "AIP_STORAGE_URI")
    isempty(artifact) && push!(problems, "CHIPS_ARTIFACT is not set: name the folder or gs://bucket/prefix/ of a published model")
    config = Config(
        artifact = artifact,
        model = nonempty(text("CHIPS_MODEL", pattern = MODEL_NAME)),
        version = nonempty(text("CHIPS_VERSION", pattern = VERSION_NAME)),
        artifact_digest = nonempty(text("CHIPS_ARTIFACT_DIGEST", pattern = DIGEST)),
        port = number("PORT", "AIP_HTTP_PORT", default = 8080, least = 0, most = 65535),
        cache_dir = something(nonempty(text("CHIPS_CACHE_DIR")), joinpath(tempdir(), "chips")),
        concurrency = number("CHIPS_CONCURRENCY", default = capacity, least = 1, most = 1000),
        max_body_bytes = number("CHIPS_MAX_BODY_BYTES", default = 31 * 1024 * 1024, least = 1, most = 2^31),
        predict_route = text("AIP_PREDICT_ROUTE", pattern = ROUTE),
        health_route = text("AIP_HEALTH_ROUTE", pattern = ROUTE),
        predict = text("CHIPS_PREDICT"),
        project = text("GOOGLE_CLOUD_PROJECT"),
        service = text("K_SERVICE"),
        revision = text("K_REVISION"),
    )
    isempty(config.predict) || isfile(config.predict) || push!(problems, "CHIPS_PREDICT='$(first(config.predict, 80))' is no file")
    if config.concurrency > capacity
        push!(
            problems,
            "CHIPS_CONCURRENCY=$(config.concurrency), but Julia runs with threads for $capacity prediction(s) at once: " *
            "start it by bin/serve, which sees to that, or with -t $(config.concurrency),1",
        )
    end
    isempty(problems) || throw(ConfigError(problems))
    return config
end

nonempty(text) = isempty(text) ? nothing : text

function unknown_names(environ)
    problems = String[]
    for name in sort!(collect(keys(environ)))
        startswith(name, "CHIPS_") && !occursin("__", name) || continue
        (name in OURS || name in THE_GATEWAYS) && continue
        near = [ours for ours in OURS if edit_distance(name, ours) <= 3]
        push!(problems, "$name is not known" * (isempty(near) ? "" : "; did you mean $(first(near))?"))
    end
    return problems
end

"How many letters have to be put in, taken out or changed to come from one word to the other."
function edit_distance(one, other)
    row = collect(0:length(other))
    for (i, letter) in enumerate(one)
        previous, row[1] = row[1], i
        for (j, another) in enumerate(other)
            previous, row[j+1] = row[j+1], min(row[j+1] + 1, row[j] + 1, previous + (letter != another))
        end
    end
    return last(row)
end
