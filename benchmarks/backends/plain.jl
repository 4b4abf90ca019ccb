# The same model behind HTTP.jl alone, without a backend's checks: plain.jl PORT, a line of standard output when it listens.

import ChipsBackend

const HTTP = ChipsBackend.GenieServer.HTTP
const JSON = Base.require(Base.PkgId(Base.UUID("682c06a0-de6a-54ab-a142-c8b1cf79cde6"), "JSON"))
const WEIGHTS = [2.0, 3.0, 1.0]

function answer(request)
    body = JSON.parse(String(request.body isa AbstractVector ? request.body : request.body.data))
    predictions = [sum(WEIGHTS .* Float64.(row)) for row in body["instances"]]
    return HTTP.Response(200, ["Content-Type" => "application/json"], body = JSON.json(Dict("predictions" => predictions)))
end

server = HTTP.serve!(answer, "127.0.0.1", parse(Int, only(ARGS)))
println("listening")
flush(stdout)
wait(server)
