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

export Answer, App, CannotSave, Manifest, Predictor, Refused, Request, handle, leave, main_file, publish, save_model, serve

include("StrictJSON.jl")
using .StrictJSON
using .StrictJSON:
    Reader,
    TypedVector,
    each_field,
    each_item,
    fail,
    float_of,
    go_in,
    go_on,
    integer_of,
    is_digit,
    next_byte,
    read_array,
    read_end,
    read_number,
    read_value,
    read_word,
    skip_value,
    with_name,
    with_text,
    written

include("problem.jl")
include("config.jl")
include("trace.jl")
include("logs.jl")
include("manifest.jl")
include("transfer.jl")
include("bucket.jl")
include("artifact.jl")
include("columns.jl")
include("schema.jl")
include("instances.jl")
include("tensors.jl")
include("binary.jl")
include("answers.jl")
include("workers.jl")
include("service.jl")
include("blame.jl")
include("openapi.jl")
include("app.jl")
include("serve.jl")
include("publish.jl")
include("example.jl")
include("known_categories.jl")
include("baseline.jl")
include("card.jl")
include("saving.jl")
include("exercise.jl")

end
