"""
The web side, and the only file that knows Genie (5 and 6) and HTTP.jl (1 and 2): every request goes to `handle` as it came.

Genie's own reading would change requests on their way: it reads JSON by rules of its own, takes a path with a dot for a file,
answers a wrong method with 404, fails on headers that are not UTF-8, and takes WebSocket upgrades whatever its configuration
says. So a stream handler reads the request, puts it aside and gives Genie an empty one for the only route there is.
"""
module GenieServer

import Genie, HTTP, Sockets
using ..Backend: App, Headers, Request, bad_request, handle, header, too_long

const ROUTE = "/request-put-aside"
const BLOCK_BYTES = 1 << 18
const LONGEST_FIELD_BYTES = 16 * 1024
const READ_ON_BYTES = 1 << 26
const WAITING_CONNECTIONS = 1024
const QUIET = pkgversion(HTTP) < v"2" ? (verbose = -1,) : (;)

"""
Start to answer by `app`; the port, and a function that stops: no new connections, and what runs finishes. Base.IOError
where the port is taken or may not be had.
"""
function listen(app::App, port)
    port = find_port(port)
    configure!()
    Genie.Router.route(() -> respond(app), ROUTE, method = "GET", named = :request_put_aside)
    server = HTTP.listen!(stream -> talk(app, stream), "0.0.0.0", port; backlog = WAITING_CONNECTIONS, QUIET...)
    return port, () -> close(server)
end

function configure!()
    Genie.config.app_env = "prod"  # otherwise errors show their stack to the caller
    Genie.config.run_as_server = true
    Genie.config.log_requests = false
    Genie.config.server_handle_static_files = false
    Genie.config.server_signature = ""
end

"The port, or a free one for 0. It is tried first because each release of HTTP.jl has errors of its own for one that is taken."
function find_port(port)
    server = Sockets.listen(Sockets.IPv4(0), port)
    found = Sockets.getsockname(server)[2]
    close(server)
    return Int(found)
end

function talk(app::App, stream)
    keep_protocol!(stream.message)
    aside, is_whole = read_request(stream, app.config.max_body_bytes)
    # HTTP.jl knows the method that was asked for; Genie only passes the request on.
    answer = task_local_storage(() -> Genie.Server.setup_http_listener(HTTP.Request("GET", ROUTE)), :request_put_aside, aside)
    body = bytes(answer.body)
    HTTP.setstatus(stream, answer.status)
    for (name, value) in answer.headers
        isempty(value) || HTTP.setheader(stream, string(name) => string(value))  # Genie adds an empty Server
    end
    HTTP.setheader(stream, "Content-Length" => string(length(body)))
    is_whole || HTTP.setheader(stream, "Connection" => "close")
    HTTP.startwrite(stream)
    aside.method == "HEAD" || write(stream, body)
    is_whole || let_read(stream)
    return nothing
end

"""
An upgrade is never taken: the request is answered as HTTP/1.1, as if it had not asked (RFC 9110, section 7.8). HTTP.jl 1 closes
a connection that asks for nothing but an upgrade, and does not say so.
"""
function keep_protocol!(message)
    lowercase(strip(text_of(HTTP.header(message, "Connection", "")))) == "upgrade" && HTTP.removeheader(message, "Connection")
end

text_of(value) = isvalid(String(value)) ? String(value) : ""

"The request, and whether all of its body was read: what is too large is not, nor what is no body."
function read_request(stream, limit)
    message = stream.message
    headers = Headers([string(name) => string(value) for (name, value) in message.headers])
    request(body, problem = nothing) = Request(String(message.method), String(message.target), headers, body, problem)
    longest = maximum(((name, value),) -> sizeof(name) + sizeof(value), headers, init = sizeof(message.target))
    longest > LONGEST_FIELD_BYTES && return request("", too_long()), false
    try
        body, is_whole = read_body(stream, something(tryparse(Int, header(headers, "content-length", "0")), 0), limit)
        return request(body), is_whole
    catch error
        error isa Union{EOFError,HTTP.ParseError} || nameof(typeof(error)) == :ProtocolError || rethrow()  # of HTTP.jl 2 alone
        return request("", bad_request()), false
    end
end

function read_body(stream, declared, limit)
    declared > limit && return "", false
    body = IOBuffer(sizehint = max(declared, 0))
    while !eof(stream)
        write(body, read(stream, BLOCK_BYTES))
        body.size > limit && return String(take!(body)), false
    end
    body.size < declared && throw(EOFError())
    return String(take!(body)), true
end

"Read on for a while and forget it: a caller who still sends would see its connection reset before it reads the answer."
function let_read(stream)
    closewrite(stream)
    left = READ_ON_BYTES
    try
        while left > 0 && !eof(stream)
            left -= max(length(read(stream, BLOCK_BYTES)), 1)
        end
    catch
        # It left, or sends what is no body: nothing more to say to it.
    end
    close(stream)
end

bytes(body::AbstractVector{UInt8}) = Vector{UInt8}(body)
bytes(body) = hasproperty(body, :data) ? Vector{UInt8}(body.data) : UInt8[]  # of HTTP.jl 2: BytesBody, or EmptyBody

"The answer to the request that was put aside."
function respond(app::App)
    aside = get(task_local_storage(), :request_put_aside, nothing)
    answer = handle(app, something(aside, Request("GET", ROUTE, Headers())))
    return HTTP.Response(answer.status, answer.headers, body = answer.body)
end

end
