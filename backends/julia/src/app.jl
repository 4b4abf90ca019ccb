# From a request to its answer: routes, headers, limits, the log line. Knows no web framework.

const REQUEST_ID = r"^[A-Za-z0-9._:+/=@-]{1,128}\z"
const JSON_TYPE = "application/json"
const PROBLEM_TYPE = "application/problem+json"
const SMALL_BODY_BYTES = 64 * 1024
const LARGE_BODY_BYTES = 8 * 1024 * 1024

"""
A request as a web server hands it over; `body` is empty where the server did not read one. `problem` is what the server found
wrong with it, and then the answer.
"""
struct Request
    method::String
    target::String
    headers::Headers
    body::String  # any bytes
    problem::Union{Problem,Nothing}
    Request(method, target, headers, body = "", problem = nothing) =
        new(method, target, [name => text(value) for (name, value) in headers], body, problem)
end

bad_request() = Problem(400, "bad-request", "the body ended early, or is not chunked as HTTP/1.1 has it")
too_long() = Problem(431, "headers-too-large", "the request line and each header field may have 16 KiB at most")

"A header's value as text: bytes that are no UTF-8 are Latin-1, as HTTP once had it."
text(value) = isvalid(value) ? value : String(Char.(codeunits(value)))

struct Answer
    status::Int
    headers::Headers
    body::Vector{UInt8}
end

"One request on its way: what it asked, how long its parts took, what the log will say."
mutable struct Call
    request::Request
    path::String
    request_id::String
    arrived::Float64
    timing::Vector{Pair{String,Float64}}  # milliseconds
    headers::Headers  # of a good answer
end

function Call(request::Request)
    given = header(request.headers, "x-request-id", "")
    request_id = occursin(REQUEST_ID, given) ? given : replace(string(uuid4()), "-" => "")
    timing = ["queue" => 0.0, "parse" => 0.0, "predict" => 0.0, "render" => 0.0]
    return Call(request, String(first(split(request.target, '?'))), request_id, time(), timing, ["Content-Type" => JSON_TYPE])
end

is_open_inference(call::Call) = startswith(call.path, "/v2/")

function set_time!(call::Call, name, seconds)
    place = findfirst(part -> first(part) == name, call.timing)
    call.timing[place] = name => seconds * 1000
end

"Answers requests. `loaded` is nothing until the model is ready."
mutable struct App
    config::Config
    routes::Dict{String,Dict{String,Function}}
    served::String  # model@version; empty until it is known
    loaded::Union{Loaded,Nothing}
    openapi::Vector{UInt8}
    running::Threads.Atomic{Int}
end

function App(config::Config)
    served = config.model === nothing || config.version === nothing ? "" : "$(config.model)@$(config.version)"
    return App(config, table(config, config.model, config.version), served, nothing, UInt8[], Threads.Atomic{Int}(0))
end

function become_ready!(app::App, loaded::Loaded)
    manifest = loaded.artifact.manifest
    app.openapi = encode(describe(manifest))
    app.served = "$(manifest.model)@$(manifest.version)"
    app.routes = table(app.config, manifest.model, manifest.version)
    app.loaded = loaded
end

function table(config::Config, model_name, version)
    routes = Dict{String,Dict{String,Function}}(
        "/predict" => Dict("POST" => predict_route),
        "/v2/health/live" => Dict("GET" => live_route),
        "/v2/health/ready" => Dict("GET" => ready_route),
        "/openapi.json" => Dict("GET" => openapi_route),
    )
    if model_name !== nothing && version !== nothing
        for model in ("/v2/models/$model_name", "/v2/models/$model_name/versions/$version")
            routes[model] = Dict("GET" => metadata_route)
            routes["$model/ready"] = Dict("GET" => ready_route)
            routes["$model/infer"] = Dict("POST" => infer_route)
        end
    end
    add(path, method, route) = isempty(path) || (get!(Dict{String,Function}, routes, path)[method] = route)
    add(config.predict_route, "POST", predict_route)
    add(config.health_route, "GET", ready_route)
    return routes
end

"The answer to a request. Whatever happens, there is one."
function handle(app::App, request::Request)
    call = Call(request)
    Threads.atomic_add!(app.running, 1)
    trace = read_trace(request.headers)
    task_local_storage(:log_fields, log_fields(trace, call.request_id, app.config.project)) do
        code = ""
        status, body, own = try
            200, route(app, call), call.headers
        catch error
            problem = error isa Problem ? error : failed(call, error, catch_backtrace())
            code = problem.code
            content = render(problem, call.request_id, open_inference = is_open_inference(call))
            problem.status, content, Headers(["Content-Type" => PROBLEM_TYPE; problem.headers])
        finally
            Threads.atomic_sub!(app.running, 1)
        end
        headers = Headers(
            [
                own
                "X-Request-Id" => call.request_id
                isempty(app.served) ? Headers() : Headers(["X-Chips-Model" => app.served])
                "Server-Timing" => server_timing(call, code)
            ],
        )
        log_call(call, status, length(body), code)
        return Answer(status, headers, body)
    end
end

function server_timing(call::Call, code)
    parts = ["$name;dur=$(round(ms, digits = 1))" for (name, ms) in call.timing]
    isempty(code) || push!(parts, "error;desc=\"$code\"")
    return join(parts, ", ")
end

"What is no Problem is the model's failure: the stack goes to the log, never to the caller."
function failed(call::Call, error, trace)
    @error "request $(call.request_id) failed" exception = (error, trace)
    return Problem(500, "prediction-failed", "the prediction failed; the log has the reason under this id")
end

function route(app::App, call::Call)
    call.request.problem === nothing || throw(call.request.problem)
    methods = get(app.routes, call.path, nothing)
    # Whose name may only be known when it is loaded.
    methods === nothing && startswith(call.path, "/v2/models/") && need_model(app)
    methods === nothing &&
        throw(Problem(404, "not-found", "there is nothing at $(first(call.path, 200)); GET /openapi.json tells what there is"))
    method = call.request.method == "HEAD" ? "GET" : call.request.method
    if !haskey(methods, method)
        allow = join(sort!([collect(keys(methods)); haskey(methods, "GET") ? ["HEAD"] : String[]]), ", ")
        throw(Problem(405, "method-not-allowed", "use $allow here", "Allow" => allow))
    end
    return methods[method](app, call)::Vector{UInt8}
end

live_route(::App, ::Call) = encode(object("live" => true))

function ready_route(app::App, ::Call)
    loaded = need_model(app)
    is_stuck(loaded.workers) && throw(
        Problem(503, "not-ready", "all slots are held by predictions that take longer than was allowed", "Retry-After" => "1"),
    )
    return encode(object("ready" => true, "name" => loaded.artifact.manifest.model))
end

function openapi_route(app::App, ::Call)
    need_model(app)
    return app.openapi
end

function metadata_route(app::App, ::Call)
    loaded = need_model(app)
    artifact = loaded.artifact
    signature = artifact.manifest.signature
    parameters = object(
        "concurrency" => app.config.concurrency,
        "artifact" => artifact.address,
        "artifact_digest" => artifact.digest,
        "accepts" => loaded.accepts,
    )
    loaded.classes === nothing || push!(parameters, "classes" => loaded.classes)
    categories = [input.name => input.categories for input in signature.inputs if input.categories !== nothing]
    isempty(categories) || push!(parameters, "categories" => object(categories...))
    artifact.manifest.rows == "together" && push!(parameters, "rows" => "together")
    return encode(
        object(
            "name" => artifact.manifest.model,
            "versions" => [artifact.manifest.version],
            "platform" => "julia-$(artifact.manifest.format)",
            "inputs" => map(tensor_object, signature.inputs),
            "outputs" => map(tensor_object, signature.outputs),
            "parameters" => parameters,
        ),
    )
end

tensor_object(tensor) = object("name" => tensor.name, "datatype" => tensor.datatype, "shape" => tensor.shape)

function predict_route(app::App, call::Call)
    loaded = need_model(app)
    manifest = loaded.artifact.manifest
    check_body(app, call.request)
    read_scoring() = read_instances(call.request.body, manifest.signature, loaded.accepts)
    return scored(call, loaded, read_scoring, row_place) do scoring, answers
        content = object("predictions" => predictions_of(answers), "model" => manifest.model, "version" => manifest.version)
        wants_classes(scoring) && push!(content, "classes" => loaded.classes)
        encode(content)
    end
end

function infer_route(app::App, call::Call)
    loaded = need_model(app)
    manifest = loaded.artifact.manifest
    body = call.request.body
    lengths = json_lengths(call.request.headers)
    check_body(app, call.request, isempty(lengths) ? () : (BINARY_TYPE,))
    json_bytes = isempty(lengths) ? nothing : json_bytes_of(lengths, body)
    read_scoring() = read_tensors(body, manifest.signature, loaded.accepts, loaded.outputs[]; json_bytes)
    return scored(call, loaded, read_scoring, tensor_place) do scoring, answers
        is_declared = !get(scoring.parameters, "probabilities", false)
        outputs = tensor_outputs(answers, manifest.signature, wanted = scoring.outputs, is_declared = is_declared)
        binary = pack!(outputs, scoring.forms)
        content = object("model_name" => manifest.model, "model_version" => manifest.version, "outputs" => outputs)
        scoring.id === nothing || push!(content, "id" => scoring.id)
        wants_classes(scoring) && push!(content, "parameters" => object("classes" => loaded.classes))
        encoded = encode(content)
        binary === nothing && return encoded
        call.headers = ["Content-Type" => BINARY_TYPE, LENGTH_HEADER => string(length(encoded))]
        return append!(encoded, binary)
    end
end

wants_classes(scoring::Scoring) = get(scoring.parameters, "classes", false)

function need_model(app::App)
    loaded = app.loaded
    loaded === nothing && throw(Problem(503, "not-ready", "the model is still being loaded", "Retry-After" => "1"))
    return loaded
end

"""
The answer to a request for predictions: read, predicted, and rendered by `render(scoring, answers)`. Only a small body is read by the
thread that answers; to read a large one would stop it, so that is done in the slot, and so is all rendering.
"""
function scored(render, call::Call, loaded::Loaded, read_scoring, place)
    read_now() = timed(read_scoring, call, "parse")
    early = sizeof(call.request.body) <= SMALL_BODY_BYTES ? read_now() : nothing
    outcome = perform(loaded.workers, deadline = deadline(call)) do
        # What earlier ones left is some times their size each, and Julia would let several lie.
        sizeof(call.request.body) > LARGE_BODY_BYTES && GC.gc(false)
        scoring = early === nothing ? read_now() : early
        answers = timed(() -> answer(loaded, scoring, place), call, "predict")
        timed(() -> render(scoring, answers), call, "render")
    end
    outcome isa Failed && throw(outcome.error isa Problem ? outcome.error : failed(call, outcome.error, outcome.trace))
    set_time!(call, "queue", outcome.queue_s)
    return outcome.value
end

function timed(action, call::Call, name)
    began = time()
    try
        return action()
    finally
        set_time!(call, name, time() - began)
    end
end

"Throws a Problem for a body that is not read. `types` are those that it may have besides JSON."
function check_body(app::App, request::Request, types = ())
    limit = app.config.max_body_bytes
    type = lowercase(strip(first(split(header(request.headers, "content-type", JSON_TYPE), ';'))))
    type == JSON_TYPE ||
        endswith(type, "+json") ||
        type in types ||
        throw(Problem(415, "unsupported-media-type", "send application/json, not $(first(type, 80))"))
    coding = lowercase(strip(header(request.headers, "content-encoding", "identity")))
    coding in ("identity", "") || throw(
        Problem(
            415,
            "unsupported-media-type",
            "send the body as it is, without Content-Encoding $(first(coding, 80))",
            "Accept-Encoding" => "identity",
        ),
    )
    max(sizeof(request.body), declared_length(request.headers)) <= limit ||
        throw(Problem(413, "payload-too-large", "the body is larger than $limit bytes"))
end

declared_length(headers) = something(tryparse(Int, header(headers, "content-length", "0")), 0)

"When the caller stops waiting, by X-Request-Timeout in milliseconds."
function deadline(call::Call)
    allowed = header(call.request.headers, "x-request-timeout", "")
    occursin(r"^[0-9]+\z", allowed) || return Inf
    ends = call.arrived + parse(Int, first(allowed, 12)) / 1000
    ends > time() || throw(Problem(504, "deadline-exceeded", "the time allowed was over before the prediction could begin"))
    return ends
end

function log_call(call::Call, status, size, code)
    request = call.request
    fields = Dict{Symbol,Any}(
        :httpRequest => object(
            "requestMethod" => request.method,
            "requestUrl" => first(call.path, 512),
            "status" => status,
            "requestSize" => string(sizeof(request.body)),
            "responseSize" => string(size),
            "latency" => "$(round(time() - call.arrived, digits = 6))s",
        ),
        :timing => Pair{String,Float64}[name => round(ms, digits = 3) for (name, ms) in call.timing],
    )
    caller = header(request.headers, "x-chips-caller", "")
    isempty(caller) || (fields[:caller] = first(caller, 128))
    isempty(code) || (fields[:code] = code)
    # A platform asks whether the model is ready often while it loads.
    level = status < 400 || code == "not-ready" ? Logging.Info : status < 500 ? Logging.Warn : Logging.Error
    @logmsg level "$(request.method) $(first(call.path, 200)) $status" fields...
end
