# HTTP by the curl command: the standard library of Julia had no client before 1.6, and so every version runs the same code.

"The server could not be asked, or broke off; another try may help."
struct TransferError <: Exception
    message::String
end
Base.showerror(io::IO, error::TransferError) = print(io, error.message)

const CURL = `curl --disable --silent --show-error --globoff --include --http1.1 --suppress-connect-headers
    --proto =http,https --connect-timeout 10 --speed-limit 1 --speed-time 30 --header @-`

"""
Ask `url`; call `take(status, headers, body)` with the answer, `body` an `IO` that is read while it arrives. `headers` go to
curl by its standard input, so that no token is seen among the processes. `upload` is a file to send. Without `proxy`, the
proxy that the environment may name is not used. TransferError where there was no whole answer.
"""
function ask(take, url; method = "GET", headers = Headers(), upload = nothing, proxy = true)
    options = upload === nothing ? `--request $method` : `--request $method --upload-file $upload`
    proxy || (options = `$options --noproxy '*'`)
    input = IOBuffer(join("$name: $value\n" for (name, value) in headers))
    output, errors = Pipe(), Pipe()
    process = run(pipeline(ignorestatus(`$CURL $options $url`), stdin = input, stdout = output, stderr = errors), wait = false)
    close(output.in)
    close(errors.in)
    said = @async read(errors.out, String)
    try
        status, given = read_head(output.out)
        result = status === nothing ? nothing : take(status, given, output.out)
        read(output.out)
        wait(process)
        process.exitcode == 0 && status !== nothing && return result
        throw(TransferError(something(nonempty(strip(fetch(said))), "curl ended with $(process.exitcode)")))
    finally
        process_running(process) && kill(process, Base.SIGKILL)
        close(output)
        close(errors)
    end
end

"Status and headers of the answer, past any `100 Continue`; nothing where it ended before."
function read_head(output)
    while true
        lines = split(readuntil(output, "\r\n\r\n"), "\r\n")
        words = split(first(lines), ' ')
        length(words) >= 2 || return nothing, Headers()
        status = tryparse(Int, words[2])
        status === nothing && return nothing, Headers()
        status >= 200 || continue
        headers = Headers()
        for line in lines[2:end]
            name, _, value = partition(line, ':')
            push!(headers, name => strip(value))
        end
        return status, headers
    end
end

"The text before, the first `separator` itself, and the text behind it."
function partition(text, separator::Char)
    place = findfirst(isequal(separator), text)
    place === nothing && return String(text), "", ""
    return text[1:prevind(text, place)], string(separator), text[nextind(text, place):end]
end

escape_uri(text) = join(is_plain(byte) ? Char(byte) : '%' * uppercase(string(byte, base = 16, pad = 2)) for byte in codeunits(text))

is_plain(byte) =
    UInt8('a') <= byte <= UInt8('z') ||
    UInt8('A') <= byte <= UInt8('Z') ||
    UInt8('0') <= byte <= UInt8('9') ||
    byte in codeunits("-._~")

function unescape_uri(text)
    bytes, at = UInt8[], 1
    units = codeunits(text)
    while at <= length(units)
        digits = units[at] == UInt8('%') ? tryparse(UInt8, String(units[at+1:min(at + 2, end)]), base = 16) : nothing
        push!(bytes, something(digits, units[at]))
        at += digits === nothing ? 1 : 3
    end
    return String(bytes)
end
