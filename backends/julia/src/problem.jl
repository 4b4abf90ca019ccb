# Errors that become answers: RFC 9457 problem details, one shape in every language.

const TITLES = Dict(
    400 => "Bad request",
    404 => "Not found",
    405 => "Method not allowed",
    413 => "Payload too large",
    415 => "Unsupported media type",
    422 => "Unprocessable request",
    431 => "Request header fields too large",
    500 => "Prediction failed",
    503 => "Overloaded",
    504 => "Deadline exceeded",
)

const Headers = Vector{Pair{String,String}}

"An error with an answer. `detail` is for the caller; what it hides goes to the log."
struct Problem <: Exception
    status::Int
    code::String
    detail::String
    headers::Headers
end
Problem(status, code, detail, headers::Pair{String,String}...) = Problem(status, code, detail, collect(headers))
Base.showerror(io::IO, problem::Problem) = print(io, problem.code, ": ", problem.detail)

"The body. On `/v2/…` it also carries `error`, so that one body serves both specifications."
function render(problem::Problem, request_id; open_inference)
    body = object(
        "type" => "about:blank",
        "title" => get(TITLES, problem.status, "Error"),
        "status" => problem.status,
        "code" => problem.code,
        "detail" => problem.detail,
        "request_id" => request_id,
    )
    open_inference && push!(body, "error" => problem.detail)
    return encode(body)
end

malformed_json(detail) = Problem(400, "malformed-json", detail)

"At most ten problems are named; that there are more is said."
function invalid_instances(problems)
    shown = length(problems) > 10 ? [problems[1:10]; "and more"] : problems
    return Problem(422, "invalid-instances", join(shown, "; "))
end
