"""
The backend without a web server, in the standard library alone. `handle(app, request)` answers a
request; `serve(listen, predictor)` is a backend's whole life.
"""
module Backend

using Dates: Dates, @dateformat_str, UTC, now
using Downloads: Downloads
using Logging
using SHA
using Serialization: serialize
using Sockets: Sockets
using UUIDs: uuid4

export Answer, App, Manifest, Predictor, Refused, Request, handle, leave, main_file, publish, serve

include("StrictJSON.jl")
using .StrictJSON

include("problem.jl")
include("config.jl")
include("trace.jl")
include("logs.jl")
include("manifest.jl")
include("transfer.jl")
include("bucket.jl")
include("artifact.jl")
include("rows.jl")
include("schema.jl")
include("answers.jl")
include("workers.jl")
include("service.jl")
include("blame.jl")
include("openapi.jl")
include("app.jl")
include("serve.jl")
include("publish.jl")
include("exercise.jl")

end
