# A backend's whole life without callers, over loopback: run while the package is compiled, so that starts need not compile.

"A model as examples/wine/train.jl makes it, of one measurement."
const TINY_MODEL = (means = [0.0;;], scales = [1.0;;], weights = [-1.0 1.0], intercepts = [0.0 0.0], classes = [0, 1])

"Publish a tiny model of predict.jl's own kind, serve it by `listen`, answer requests of each kind, stop."
function exercise(listen, predictor::Predictor)
    mktempdir() do folder
        serialize(joinpath(folder, "model.jls"), TINY_MODEL)
        sample = (request = (instances = [[1.0], (x = -2,)],), response = (predictions = [1, 0],), tolerance = 1e-6)
        place = publish(
            joinpath(folder, "model.jls"),
            model = "exercise",
            version = "1",
            store = joinpath(folder, "store"),
            signature = (inputs = [(name = "x", datatype = "FP64")], outputs = [(name = "y", datatype = "INT64")]),
            samples = [sample],
        )
        environ = Dict("CHIPS_MODEL" => "exercise", "CHIPS_VERSION" => "1", "CHIPS_ARTIFACT" => place, "PORT" => "0")
        logger, input, log = global_logger(), Base.BufferStream(), IOBuffer()
        try
            life = @async serve(listen, predictor, environ = environ, input = input, output = log)
            port = wait_until_ready(life, log)
            exercise_requests(port)
            close(input)
            code = fetch(life)
            code == 0 || error("the exercise ended with $code: $(String(take!(log)))")
        finally
            global_logger(logger)
        end
    end
    return nothing
end

function wait_until_ready(life, log)
    while !istaskdone(life)
        said = String(copy(log.data[1:log.size]))
        occursin("\"ready: ", said) && return parse(Int, match(r"\"port\":(\d+)", said)[1])
        sleep(0.01)
    end
    error("the exercise ended early: $(String(take!(log)))")
end

function exercise_requests(port)
    tensor = object("name" => "x", "shape" => [1], "datatype" => "FP64", "data" => [1.5])
    for (method, path, body) in (
        ("GET", "/v2/health/ready", nothing),
        ("GET", "/v2/models/exercise", nothing),
        ("GET", "/openapi.json", nothing),
        ("POST", "/predict", object("instances" => [object("x" => 1.5)], "parameters" => object("probabilities" => true))),
        ("POST", "/predict", object("instances" => [[nothing], ["text"]])),
        ("POST", "/v2/models/exercise/infer", object("inputs" => [tensor])),
    )
        ask_over_loopback(port, method, path, body === nothing ? UInt8[] : encode(body))
    end
end

"What the server on this port of this machine answers, as it came."
function ask_over_loopback(port, method, path, body = UInt8[])
    socket = Sockets.connect(Sockets.localhost, port)
    try
        fields = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: $(length(body))\r\n\r\n"
        write(socket, [codeunits("$method $path HTTP/1.1\r\n$fields"); body])
        return read(socket, String)
    finally
        close(socket)
    end
end
