# Whose trace a request belongs to: W3C traceparent, else Google's older X-Cloud-Trace-Context.

const TRACEPARENT = r"^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\z"
const CLOUD_TRACE = r"^(?!0{32})([0-9a-fA-F]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?\z"

struct Trace
    trace_id::String
    span_id::String
    sampled::Bool
end

"The trace that the caller's headers name; nothing where they name none, or not a valid one."
function read_trace(headers)
    traceparent = header(headers, "traceparent", nothing)
    if traceparent !== nothing
        found = match(TRACEPARENT, traceparent)
        found === nothing && return nothing
        return Trace(found[1], found[2], isodd(parse(Int, found[3], base = 16)))
    end
    found = match(CLOUD_TRACE, header(headers, "x-cloud-trace-context", ""))
    found === nothing && return nothing
    span = found[2] === nothing ? UInt64(0) : parse(UInt128, found[2]) % UInt64
    return Trace(lowercase(found[1]), string(span, base = 16, pad = 16), !(found[3] in (nothing, "0")))
end

"The first header of that name (in small letters)."
function header(headers, name, default)
    for (given, value) in headers
        lowercase(given) == name && return value
    end
    return default
end
