# What a backend does in its life, over the network and by Genie, for PackageCompiler to watch.

import ChipsBackend
using ChipsBackend: Backend, GenieServer
using Serialization: serialize

mktempdir() do folder
    model = (means = [0.0], scales = [1.0], weights = [-1.0 1.0], intercepts = [0.0 0.0], classes = [0, 1])
    serialize(joinpath(folder, "model.jls"), model)
    place = ChipsBackend.publish(
        joinpath(folder, "model.jls"),
        model = "trace",
        version = "1",
        store = joinpath(folder, "store"),
        signature = (inputs = [(name = "x", datatype = "FP64")], outputs = [(name = "y", datatype = "INT64")]),
        samples = [(request = (instances = [[1.0]],), response = (predictions = [1],))],
    )
    port = GenieServer.free_port()
    environ = Dict("CHIPS_MODEL" => "trace", "CHIPS_VERSION" => "1", "CHIPS_ARTIFACT" => place, "PORT" => string(port))
    input = Base.BufferStream()
    life = @async Backend.serve(GenieServer.listen, ChipsBackend.PREDICTOR, environ = environ, input = input)
    url = "http://127.0.0.1:$port"
    deadline = time() + 120
    while !success(`curl --silent --fail --output /dev/null $url/v2/health/ready`) && time() < deadline
        sleep(0.1)
    end
    json = "Content-Type: application/json"
    run(`curl --silent --fail --header $json --data '{"instances":[[1.5]]}' $url/predict`)
    run(`curl --silent --fail $url/openapi.json`)
    close(input)
    wait(life)
end
