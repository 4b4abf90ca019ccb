# HTTP to Cloud Storage and the metadata server, by Downloads of the standard library (libcurl).

"The server could not be asked, or broke off; another try may help."
struct TransferError <: Exception
    message::String
end
Base.showerror(io::IO, error::TransferError) = print(io, error.message)

"What a server answered. `broken` says why the body ended early; empty where it is whole."
struct Reply
    status::Int
    headers::Headers
    broken::String
end

"""
Ask `url`, and write the body to `output`. `upload` is a file to send. Without `proxy`, the proxy that the environment may name is
not used. TransferError where no answer with content began.
"""
function ask(url, output::IO; method = "GET", headers = Headers(), upload = nothing, proxy = true)
    downloader = proxy ? nothing : without_proxy()  # nothing stands for the one that keeps its connections
    sent = upload === nothing ? (;) : (input = upload,)
    answer = Downloads.request(url; method, headers, output, downloader, throw = false, sent...)
    answer isa Downloads.Response && return Reply(answer.status, answer.headers, "")
    answer.response.status in (200, 206) || throw(TransferError(answer.message))
    return Reply(answer.response.status, answer.response.headers, answer.message)
end

function without_proxy()
    downloader = Downloads.Downloader()
    downloader.easy_hook = (easy, _) -> Downloads.Curl.setopt(easy, Downloads.Curl.CURLOPT_NOPROXY, "*")
    return downloader
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
        digits = units[at] == UInt8('%') ? tryparse(UInt8, String(units[(at+1):min(at+2, end)]), base = 16) : nothing
        push!(bytes, something(digits, units[at]))
        at += digits === nothing ? 1 : 3
    end
    return String(bytes)
end
