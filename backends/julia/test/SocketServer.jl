"""
A small HTTP/1.1 server on the standard library's sockets, for tests only: it lets the backend be driven over real HTTP where
there is no Genie. It is not part of what ships.
"""
module SocketServer

using Sockets
using ..Backend: Answer, App, Backend, Headers, Problem, Request, handle, header, render

const LONGEST_HEAD = 64 * 1024

"What was sent is no request; the text is for the log only."
struct NoRequest <: Exception
    status::Int
end

"Start to answer by `app`; the port, and a function that stops: no new connections, and what runs finishes."
function listen(app::App, port)
    server = Sockets.listen(IPv6(0), port)
    # A connection that idles may be closed at any time; one that is answering may not.
    connections = Dict{TCPSocket,Bool}()
    accepting = @async while isopen(server)
        socket = try
            accept(server)
        catch
            break
        end
        Sockets.nagle(socket, false)
        connections[socket] = false
        @async try
            talk(app, socket, connections)
        catch error
            error isa Union{EOFError,Base.IOError,NoRequest} || @error "connection failed" exception = (error, catch_backtrace())
        finally
            close(socket)
            delete!(connections, socket)
        end
    end
    function stop()
        close(server)
        wait(accepting)
        while any(values(connections))
            sleep(0.01)
        end
    end
    return Int(getsockname(server)[2]), stop
end

function talk(app::App, socket, connections)
    while isopen(socket) && !eof(socket)
        request, goes_on = try
            read_request(app, socket, connections)
        catch error
            error isa NoRequest || rethrow()
            send(socket, refusal(app, error.status), false, true)
            linger(socket)
            return
        end
        connections[socket] = true
        send(socket, handle(app, request), goes_on, request.method != "HEAD")
        connections[socket] = false
        goes_on || return linger(socket)
    end
end

"Let the peer read the answer before a reset reaches it, if it is still sending."
function linger(socket)
    Base.shutdown(socket)
    timer = Timer(_ -> close(socket), 2)
    read(socket)
    close(timer)
end

function refusal(app::App, status)
    detail = status == 431 ? "the request line or a header field is too long" : "the request is not valid HTTP/1.1"
    problem = Problem(status, status == 431 ? "headers-too-large" : "bad-request", detail)
    return Answer(status, ["Content-Type" => "application/problem+json"], render(problem, "none", open_inference = false))
end

"The next request, and whether the connection can be used again after it."
function read_request(app::App, socket, connections)
    line = read_line(socket)
    isempty(line) && (line = read_line(socket))
    connections[socket] = true
    found = match(r"^([A-Z]+) (/[!-~]*) HTTP/1\.([01])\z", line)
    found === nothing && throw(NoRequest(400))
    headers = read_headers(socket)
    connection = lowercase(header(headers, "connection", found[3] == "1" ? "keep-alive" : "close"))
    body, is_whole = read_body(app, socket, headers)
    return Request(found[1], found[2], headers, body), is_whole && connection != "close"
end

function read_headers(socket)
    headers = Headers()
    while (line = read_line(socket)) != ""
        found = match(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*\z", line)
        found === nothing && throw(NoRequest(400))
        push!(headers, found[1] => found[2])
        sum(sizeof(name) + sizeof(value) for (name, value) in headers) > LONGEST_HEAD && throw(NoRequest(431))
    end
    return headers
end

function read_line(socket)
    line = IOBuffer()
    while true
        byte = read(socket, UInt8)
        byte == 0x0a && break
        write(line, byte)
        position(line) > 16 * 1024 && throw(NoRequest(431))
    end
    text = String(Char.(take!(line)))
    return endswith(text, '\r') ? chop(text) : text
end

"The body, and whether it was read to its end: one that is too large is not."
function read_body(app::App, socket, headers)
    encoding, declared = header(headers, "transfer-encoding", nothing), header(headers, "content-length", nothing)
    limit = app.config.max_body_bytes
    if encoding !== nothing
        lowercase(encoding) == "chunked" && declared === nothing || throw(NoRequest(400))
        expect_continue(socket, headers)
        return read_chunks(socket, limit)
    end
    declared === nothing && return UInt8[], true
    occursin(r"^[0-9]{1,18}\z", declared) || throw(NoRequest(400))
    count = parse(Int, declared)
    count > limit && return UInt8[], false
    expect_continue(socket, headers)
    body = read(socket, count)
    length(body) == count || throw(EOFError())
    return body, true
end

expect_continue(socket, headers) =
    lowercase(header(headers, "expect", "")) == "100-continue" && write(socket, "HTTP/1.1 100 Continue\r\n\r\n")

function read_chunks(socket, limit)
    body = UInt8[]
    while true
        found = match(r"^([0-9a-fA-F]{1,8})(?:;.*)?\z", read_line(socket))
        found === nothing && throw(NoRequest(400))
        count = parse(Int, found[1], base = 16)
        if count == 0
            read_headers(socket)
            return body, true
        end
        append!(body, read(socket, count))
        length(body) > limit && return body, false
        isempty(read_line(socket)) || throw(NoRequest(400))
    end
end

function send(socket, answer::Answer, goes_on, with_body)
    head = IOBuffer()
    print(head, "HTTP/1.1 ", answer.status, " ", get(Backend.TITLES, answer.status, "OK"), "\r\n")
    for (name, value) in answer.headers
        print(head, name, ": ", value, "\r\n")
    end
    print(head, "Content-Length: ", length(answer.body), goes_on ? "\r\n\r\n" : "\r\nConnection: close\r\n\r\n")
    with_body && write(head, answer.body)
    write(socket, take!(head))
end

end
