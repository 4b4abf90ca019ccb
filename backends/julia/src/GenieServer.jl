"""
The web side, and the only file that knows Genie (5 and 6 alike): every request goes to `handle`, as it came.

Genie's own routing would change requests on their way: it reads JSON by rules of its own, takes a path with a dot for a file,
answers a wrong method with 404, and an empty body can end in a 500. So a hook, which Genie calls before anything else, puts the
request aside and goes on with an empty one for the only route there is.
"""
module GenieServer

import Genie, HTTP, Sockets
using ..Backend: App, Headers, Request, handle

const ROUTE = "/request-put-aside"

"Start to answer by `app`; the port, and a function that stops: no new connections, and what runs finishes."
function listen(app::App, port)
    port == 0 && (port = free_port())
    configure!()
    put_aside in Genie.Router.content_negotiation_hooks || push!(Genie.Router.content_negotiation_hooks, put_aside)
    Genie.Router.route(() -> respond(app), ROUTE, method = "GET", named = :request_put_aside)
    # Genie 5 says nothing where the port is taken.
    server = Genie.up(port, "0.0.0.0", async = true).webserver
    server === nothing && error("the port is in use, or may not be taken")
    return port, () -> close(server)
end

function configure!()
    Genie.config.app_env = "prod"  # otherwise errors show their stack to the caller
    Genie.config.run_as_server = true
    Genie.config.log_requests = false
    Genie.config.server_handle_static_files = false
    Genie.config.server_signature = ""
    Genie.config.websockets_server = nothing
    # Not to allow anybody anything, but because Genie turns a preflight's header into a 500 otherwise.
    Genie.config.cors_headers["Access-Control-Allow-Headers"] = "*"
end

function free_port()
    server = Sockets.listen(Sockets.IPv4(0), 0)
    port = Sockets.getsockname(server)[2]
    close(server)
    return Int(port)
end

# Genie calls its hooks again once a route is found, with the request they made.
function put_aside(request, response, params)
    request.target == ROUTE && return request, response, params
    headers = Headers([string(name) => string(value) for (name, value) in request.headers])
    task_local_storage(:request, Request(String(request.method), String(request.target), headers, bytes(request.body)))
    method = request.method == "HEAD" ? "HEAD" : "GET"
    return HTTP.Request(method, ROUTE), response, params
end

bytes(body::AbstractVector{UInt8}) = Vector{UInt8}(body)
bytes(body) = hasproperty(body, :data) ? Vector{UInt8}(body.data) : UInt8[]  # of HTTP 2: BytesBody, or EmptyBody

"The answer to the request that was put aside. It is taken away: a connection's next request is another one."
function respond(app::App)
    aside = pop!(task_local_storage(), :request, nothing)
    answer = handle(app, something(aside, Request("GET", ROUTE, Headers(), UInt8[])))
    return HTTP.Response(answer.status, answer.headers, body = answer.body)
end

end
