# Logs: one JSON object a line in Cloud Logging's words; readable lines on a terminal. Never anything of a payload.

"""
A logger for `@info` and its like: their keywords become fields of the line, next to `facts` and what the task's own storage
holds under `:log_fields` (the trace and the id of the request that it works for).
"""
struct CloudLogger <: AbstractLogger
    io::IO
    facts::Dict{String,Any}
    readable::Bool
    turn::ReentrantLock
end
CloudLogger(io::IO, facts = Dict{String,Any}()) = CloudLogger(io, facts, io isa Base.TTY, ReentrantLock())

"From now on, every line says what is served."
know!(::AbstractLogger, _) = nothing
know!(logger::CloudLogger, manifest) =
    lock(() -> merge!(logger.facts, Dict("model" => manifest.model, "version" => manifest.version)), logger.turn)

Logging.min_enabled_level(::CloudLogger) = Logging.Info
Logging.shouldlog(::CloudLogger, _...) = true
Logging.catch_exceptions(::CloudLogger) = true

function Logging.handle_message(logger::CloudLogger, level, message, rest...; exception = nothing, maxlog = nothing, fields...)
    line = Dict{String,Any}(
        "severity" => level < Logging.Warn ? "INFO" : level < Logging.Error ? "WARNING" : "ERROR",
        "message" => string(message),
        "time" => Dates.format(now(UTC), dateformat"yyyy-mm-dd\THH:MM:SS.sss\Z"),
    )
    lock(() -> merge!(line, logger.facts), logger.turn)
    merge!(line, get(task_local_storage(), :log_fields, Dict{String,Any}()))
    for (name, value) in fields
        line[string(name)] = plain(value)
    end
    exception === nothing || (line["stack"] = stack_text(exception))
    text = logger.readable ? readable(line) : String(encode(line)) * "\n"
    lock(logger.turn) do
        write(logger.io, text)
        flush(logger.io)  # Julia buffers standard output when that is a file
    end
    return nothing
end

plain(value::Union{Nothing,Missing,Real,AbstractString,Symbol,AbstractDict,NamedTuple,AbstractVector,Tuple}) = value
plain(value) = string(value)

stack_text(error::Exception) = sprint(showerror, error)
stack_text((error, trace)::Tuple) = sprint(showerror, error, trace)
stack_text(other) = string(other)

function readable(line)
    text = string(Dates.format(now(), "HH:MM:SS"), ' ', lowercase(line["severity"]), ' ', line["message"], '\n')
    return haskey(line, "stack") ? text * line["stack"] * "\n" : text
end

"What the lines of one request have in common."
function log_fields(trace::Union{Trace,Nothing}, request_id, project)
    fields = Dict{String,Any}("request_id" => request_id)
    if trace !== nothing
        prefix = isempty(project) ? "" : "projects/$project/traces/"
        fields["logging.googleapis.com/trace"] = prefix * trace.trace_id
        fields["logging.googleapis.com/spanId"] = trace.span_id
        fields["logging.googleapis.com/trace_sampled"] = trace.sampled
    end
    return fields
end
