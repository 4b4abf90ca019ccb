"""
The backend without a web server, in the standard library alone, for Julia 1.5 and newer. `handle(app, request)` answers a
request; `serve(listen, predictor)` is a backend's whole life.
"""
module Backend

using Dates: Dates, @dateformat_str, UTC, now
using Logging
using SHA
using Serialization: deserialize, serialize
using UUIDs: uuid4

export Answer, App, Manifest, Predictor, Refused, Request, handle, leave, main_file, publish, serve

include("StrictJSON.jl")
using .StrictJSON

include("problem.jl")
include("config.jl")
include("trace.jl")
include("logs.jl")
include("manifest.jl")
include("curl.jl")
include("bucket.jl")
include("artifact.jl")
include("schema.jl")
include("workers.jl")
include("service.jl")
include("openapi.jl")
include("app.jl")
include("serve.jl")
include("publish.jl")
include("exercise.jl")

end
