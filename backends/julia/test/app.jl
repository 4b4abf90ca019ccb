using .Backend: App, Config, Predictor, Problem, Request, StartError, become_ready!, bring_into_service, handle, perform
using .Backend.StrictJSON: encode, parse_json
using Serialization: serialize
using SHA: sha256

"A folder with an artifact whose model doubles x; its sample says so, unless told otherwise."
function doubler(; published = 4.0)
    folder = mktempdir()
    serialize(joinpath(folder, "model.jls"), (factor = 2.0,))
    content = read(joinpath(folder, "model.jls"))
    manifest = (
        schema = 1,
        model = "double",
        version = "1",
        format = "jls",
        runtime = (julia = "1.10.8",),
        files = [(path = "model.jls", bytes = length(content), sha256 = bytes2hex(sha256(content)))],
        signature = (
            inputs = [(name = "x", datatype = "FP64", shape = [-1])],
            outputs = [(name = "y", datatype = "FP64", shape = [-1])],
        ),
        samples = [(request = (instances = [[2]],), response = (predictions = [published],), tolerance = 1e-9)],
    )
    write(joinpath(folder, "manifest.json"), encode(manifest))
    return folder
end

function double(model, rows, parameters)
    get(parameters, "fail", false) !== false && error("a secret of the model")
    get(parameters, "short", false) && return [1.0]
    get(parameters, "refuse", false) && throw(Backend.Refused("there is no such wine"))
    get(parameters, "throw", nothing) == "interrupt" && throw(InterruptException())
    any(isequal(13.0), rows.x) && error("thirteen is a secret of the model")
    return model.factor .* rows.x
end

const DOUBLE =
    Predictor((folder, manifest) -> Predict.load(folder, manifest), double, parameters = ["fail", "refuse", "short", "throw"])

config(folder; options...) =
    Config(; model = "double", version = "1", artifact = folder, cache_dir = mktempdir(), max_body_bytes = 1000, options...)

function quietly(action)
    io = IOBuffer()
    result = with_logger(action, Backend.CloudLogger(io))
    return result, String(take!(io))
end

function app(; options...)
    folder = doubler()
    made = App(config(folder; options...))
    become_ready!(made, first(quietly(() -> bring_into_service(made.config, DOUBLE))))
    return made
end

function ask(app, method, path, body = ""; headers = ["Content-Type" => "application/json"])
    answer, log = quietly(() -> handle(app, Request(method, path, headers, body)))
    return answer.status, parse_json(answer.body), Dict(answer.headers), log
end

@testset "before the model is there" begin
    unnamed = App(Config(artifact = "/x"))
    @test ask(unnamed, "GET", "/v2/models/double")[2]["code"] == "not-ready"
    @test !haskey(ask(unnamed, "GET", "/v2/health/live")[3], "X-Chips-Model")
    early = App(config(doubler()))
    @test ask(early, "GET", "/v2/health/live")[1:2] == (200, Dict("live" => true))
    asked = ("GET" => "/v2/health/ready", "GET" => "/openapi.json", "POST" => "/predict", "GET" => "/v2/models/double")
    for (method, path) in asked
        status, body, headers = ask(early, method, path)
        @test (status, body["code"], headers["Retry-After"]) == (503, "not-ready", "1")
    end
end

const READY = app(predict_route = "/vertex", health_route = "/alive")

@testset "predictions" begin
    status, body, headers = ask(READY, "POST", "/predict?x=1", "{\"instances\":[[2],{\"x\":null},[0.5]]}")
    @test (status, body) == (200, Dict("predictions" => [4.0, nothing, 1.0], "model" => "double", "version" => "1"))
    @test headers["X-Chips-Model"] == "double@1" && headers["Content-Type"] == "application/json"
    @test occursin(r"^queue;dur=\d+\.\d, parse;dur=\d+\.\d, predict;dur=\d+\.\d, render;dur=\d+\.\d$", headers["Server-Timing"])
    @test ask(READY, "POST", "/vertex", "{\"instances\":[[1]]}")[1] == 200
    @test ask(READY, "POST", "/predict", "{\"instances\":[]}")[2]["predictions"] == []
    @test ask(READY, "POST", "/predict", "{\"instances\":[]}", headers = Headers())[1] == 200
    @test ask(READY, "POST", "/predict", "{\"instances\":[]}", headers = ["content-type" => "application/x+JSON; a=b"])[1] == 200
end

@testset "the Open Inference Protocol" begin
    request = "{\"id\":\"a\",\"inputs\":[{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP64\",\"data\":[1,2]}]}"
    for path in ("/v2/models/double/infer", "/v2/models/double/versions/1/infer")
        status, body, = ask(READY, "POST", path, request)
        @test (status, body["id"], body["model_name"], body["model_version"]) == (200, "a", "double", "1")
        @test body["outputs"] == [Dict("name" => "y", "shape" => [2], "datatype" => "FP64", "data" => [2.0, 4.0])]
    end
    status, body, = ask(READY, "POST", "/v2/models/double/infer", "{}")
    @test (status, body["code"]) == (422, "invalid-instances") && body["error"] == body["detail"]
    metadata = ask(READY, "GET", "/v2/models/double")[2]
    @test (metadata["platform"], metadata["parameters"]["concurrency"], metadata["versions"]) == ("julia-jls", 1, ["1"])
    @test ask(READY, "GET", "/v2/models/double/versions/1/ready")[2] == Dict("ready" => true, "name" => "double")
    for path in ("/v2/health/ready", "/alive", "/v2/models/double/ready")
        @test ask(READY, "GET", path)[1] == 200
        @test ask(READY, "HEAD", path)[1] == 200
    end
end

@testset "tensors in binary form" begin
    json = "{\"inputs\":[{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP64\",\"parameters\":{\"binary_data_size\":16}}]@}"
    bytes = String(collect(reinterpret(UInt8, [1.5, 2.0])))
    function infer(more; type = "application/octet-stream", length = nothing, path = "/v2/models/double/infer")
        head = replace(json, "@" => more)
        headers = ["Content-Type" => type, "inference-header-content-length" => something(length, string(sizeof(head)))]
        answer, _ = quietly(() -> handle(READY, Request("POST", path, headers, head * bytes)))
        return answer.status, Dict(answer.headers), answer.body
    end
    status, headers, body = infer("")
    @test (status, headers["Content-Type"]) == (200, "application/json")
    @test only(parse_json(body)["outputs"])["data"] == [3.0, 4.0]
    for more in
        (",\"parameters\":{\"binary_data_output\":true}", ",\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":true}}]")
        status, headers, body = infer(more)
        @test (status, headers["Content-Type"]) == (200, "application/octet-stream")
        size = parse(Int, headers["Inference-Header-Content-Length"])
        output = only(parse_json(body[1:size])["outputs"])
        @test output["parameters"] == Dict("binary_data_size" => 16) && !haskey(output, "data")
        @test reinterpret(Float64, body[(size+1):end]) == [3.0, 4.0]
    end
    for length in ("x", "-1", "", "99999", "0x10", "1 2")
        status, _, body = infer("", length = length)
        @test (status, parse_json(body)["code"]) == (422, "invalid-instances")
    end
    @test infer("", length = "5")[1] == 400
    @test infer("", type = "application/json")[1] == 200
    @test infer("", type = "text/plain")[1] == 415
    @test infer("", path = "/predict")[1] == 415
    @test ask(READY, "POST", "/v2/models/double/infer", "{}", headers = ["Content-Type" => "application/octet-stream"])[1] == 415
end

@testset "what the caller did wrong is told, and the next one is served" begin
    for (method, path, body, headers, status, code) in (
        ("POST", "/predict", "{", nothing, 400, "malformed-json"),
        ("POST", "/predict", "", nothing, 400, "malformed-json"),
        ("POST", "/predict", "[]", nothing, 422, "invalid-instances"),
        ("POST", "/predict", "{}", ["Content-Type" => "text/plain"], 415, "unsupported-media-type"),
        ("POST", "/predict", " " ^ 1001, nothing, 413, "payload-too-large"),
        ("POST", "/predict", "", ["Content-Length" => "1001"], 413, "payload-too-large"),
        ("GET", "/predict", "", nothing, 405, "method-not-allowed"),
        ("DELETE", "/v2/health/live", "", nothing, 405, "method-not-allowed"),
        ("GET", "/", "", nothing, 404, "not-found"),
        ("GET", "/predict/", "", nothing, 404, "not-found"),
        ("POST", "/v2/models/other/infer", "{}", nothing, 404, "not-found"),
        ("POST", "/predict", "{\"instances\":[[1]]}", ["X-Request-Timeout" => "0"], 504, "deadline-exceeded"),
        ("POST", "/predict", "{\"instances\":[[1]],\"parameters\":{\"fail\":true}}", nothing, 422, "invalid-instances"),
        ("POST", "/predict", "{\"instances\":[[1],[2]],\"parameters\":{\"short\":true}}", nothing, 500, "prediction-failed"),
        ("POST", "/predict", "{\"instances\":[[1]],\"parameters\":{\"fail\":\"x\"}}", nothing, 422, "invalid-instances"),
        ("POST", "/predict", "{\"instances\":[[1]],\"parameters\":{\"throw\":\"interrupt\"}}", nothing, 500, "prediction-failed"),
        ("POST", "/predict", "{\"instances\":[[1]],\"parameters\":{\"refuse\":true}}", nothing, 422, "invalid-instances"),
        ("POST", "/predict", "{\"instances\":[[1]],\"parameters\":{\"refused\":true}}", nothing, 422, "invalid-instances"),
        ("POST", "/predict", "{\"instances\":[[1]],\"refuse\":true}", nothing, 422, "invalid-instances"),
        ("POST", "/predict", "{\"instances\":[[1]]}", ["Content-Encoding" => "gzip"], 415, "unsupported-media-type"),
    )
        given = something(headers, ["Content-Type" => "application/json"])
        answer = ask(READY, method, path, body, headers = given)
        problem = answer[2]
        @test (answer[1], problem["status"], problem["code"]) == (status, status, code)
        @test Set(keys(problem)) ⊇ Set(["type", "title", "status", "code", "detail", "request_id"])
        @test haskey(problem, "error") == startswith(path, "/v2/")
        @test answer[3]["Content-Type"] == "application/problem+json" && answer[3]["X-Request-Id"] == problem["request_id"]
        @test !occursin("secret", String(encode(problem)))
        @test ask(READY, "POST", "/predict", "{\"instances\":[[1]]}")[2]["predictions"] == [2.0]
    end
    @test ask(READY, "GET", "/predict")[3]["Allow"] == "POST"
    @test ask(READY, "POST", "/alive")[3]["Allow"] == "GET, HEAD"
end

@testset "a row that the model cannot take is named, and the model's words stay in the log" begin
    status, body, _, log = ask(READY, "POST", "/predict", "{\"instances\":[[1],[2],[13],[4]]}")
    @test (status, body["detail"]) == (422, "instances[2].x: the model cannot take 13.0")
    @test occursin("secret", log)
    request = "{\"inputs\":[{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP64\",\"data\":[1,13]}]}"
    status, body, = ask(READY, "POST", "/v2/models/double/infer", request)
    @test (status, body["detail"]) == (422, "x[1]: the model cannot take 13.0")
end

@testset "a large body is read in the slot, and answered alike" begin
    large = app(max_body_bytes = 2^22)
    rows = join(("[$row.5]" for row in 100:20_000), ",")
    status, body, headers = ask(large, "POST", "/predict", "{\"instances\":[$rows]}")
    @test status == 200 && body["predictions"] == [2 * (row + 0.5) for row in 100:20_000]
    status, body, = ask(large, "POST", "/predict", "{\"instances\":[$rows,[\"x\"]]}")
    @test (status, body["code"]) == (422, "invalid-instances") &&
          startswith(body["detail"], "instances[19901][0]: expected a number")
    @test ask(large, "POST", "/predict", "{\"instances\":[$rows")[1] == 400
end

@testset "what the web server found wrong is the answer" begin
    for (problem, status) in ((Backend.bad_request(), 400), (Backend.too_long(), 431))
        answer, _ = quietly(() -> handle(READY, Request("POST", "/predict", Headers(), "", problem)))
        @test answer.status == status && parse_json(answer.body)["code"] == problem.code
    end
end

@testset "ready says so when no slot can take work" begin
    stuck, release = app(), Base.Event()
    @test overdue(() -> wait(release), stuck.loaded.workers).status == 504
    status, body, headers = ask(stuck, "GET", "/v2/health/ready")
    @test (status, body["code"], headers["Retry-After"]) == (503, "not-ready", "1")
    notify(release)
    @test perform(() -> 1, stuck.loaded.workers).value == 1
    @test ask(stuck, "GET", "/v2/health/ready")[1] == 200
end

@testset "a request's line says all but the payload" begin
    headers = [
        "Content-Type" => "application/json",
        "X-Request-Id" => "id-7",
        "X-Chips-Caller" => "ana",
        "traceparent" => "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ]
    _, _, answered, log = ask(READY, "POST", "/predict?q=payload", "{\"instances\":[[\"payload\"]]}", headers = headers)
    line = parse_json(chomp(log))
    @test !occursin("payload", log)
    @test (line["request_id"], line["caller"], line["code"], line["severity"]) == ("id-7", "ana", "invalid-instances", "WARNING")
    @test line["logging.googleapis.com/spanId"] == "00f067aa0ba902b7"
    @test (line["httpRequest"]["status"], line["httpRequest"]["requestUrl"]) == (422, "/predict")
    @test answered["X-Request-Id"] == "id-7"
    for name in ("X-Request-Id", "traceparent", "X-Cloud-Trace-Context", "X-Request-Timeout"), value in ("a b", "\xff", "ü")
        strange = ask(READY, "POST", "/predict", "{\"instances\":[[1]]}", headers = [name => value])
        @test (strange[1], strange[3]["X-Request-Id"] != value) == (200, true)
    end
    @test ask(READY, "POST", "/predict", "{}", headers = ["Content-Type" => "text/\xff"])[1] == 415
    @test ask(READY, "GET", "/\xff")[1] == 404
    _, _, _, failure = ask(READY, "POST", "/predict", "{\"instances\":[[1]],\"parameters\":{\"fail\":true}}")
    @test occursin("a secret of the model", failure) && occursin("WARNING", failure)
end

@testset "the description tells the model's fields" begin
    document = ask(READY, "GET", "/openapi.json")[2]
    @test document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    @test schemas["Instance"]["oneOf"][1]["properties"] == Dict("x" => Dict("type" => ["number", "null"]))
    @test schemas["Response"]["properties"]["model"] == Dict("const" => "double")
end

@testset "another answer than the published one stops the start" begin
    error = try
        quietly(() -> bring_into_service(config(doubler(published = 5.0)), DOUBLE))
    catch error
        error
    end
    @test error isa StartError && error.exit_code == 65 && occursin("got [4.0], published [5.0]", error.message)
    broken = Predictor((folder, manifest) -> error("no such package"), double)
    error = try
        quietly(() -> bring_into_service(config(doubler()), broken))
    catch error
        error
    end
    @test error isa StartError && error.exit_code == 70 && occursin("julia 1.10.8", error.message)
end
