# What a request may say, and what is wrong with a value. Every problem says where it is.

const ENOUGH_PROBLEMS = 11  # ten are shown, one more says that there are more

const INTEGERS = Dict{String,Tuple{BigInt,BigInt}}(
    ("INT$bits" => (-big(2)^(bits - 1), big(2)^(bits - 1) - 1) for bits in (8, 16, 32, 64))...,
    ("UINT$bits" => (big(0), big(2)^bits - 1) for bits in (8, 16, 32, 64))...,
)
const FLOATS = Dict("FP16" => 65504.0, "FP32" => 3.4028234663852886e38, "FP64" => Inf)

"Which outputs come in binary form: those that say so, and by `default` those that say nothing."
struct Forms
    default::Bool
    by_name::Dict{String,Bool}
end
Forms() = Forms(false, Dict{String,Bool}())
is_binary(forms::Forms, name) = get(forms.by_name, name, forms.default)

"A request for predictions, checked. `outputs` are those that the caller wants, by name; nothing for all."
struct Scoring
    rows::Rows
    parameters::Dict{String,Any}
    id::Union{String,Nothing}
    outputs::Union{Vector{String},Nothing}
    forms::Forms
end
Scoring(rows, parameters) = Scoring(rows, parameters, nothing, nothing, Forms())

"""
The fields of the object that a body must be, each as `read_one(reader, name)` reads it; those that are not `known` are skipped. A
Skipped where the body is anything else; a Problem says at which line and column it is not JSON.
"""
function read_fields(read_one, text::String, known, size = sizeof(text))
    try
        reader = Reader(text, size)
        body = read_fields(read_one, reader, known)
        read_end(reader)
        return body
    catch error
        error isa JSONError || rethrow()
        before = view(codeunits(text), 1:error.offset)
        line = 1 + count(isequal(0x0a), before)
        column = error.offset - something(findlast(isequal(0x0a), before), 0) + 1
        throw(malformed_json("the body is not JSON: $(error.message) at line $line, column $column"))
    end
end

function read_fields(read_one, reader::Reader, known)
    next_byte(reader) == UInt8('{') || return read_shallow(reader)
    fields = Dict{String,Any}()
    each_field(reader) do name
        fields[name] = name in known ? read_one(reader, name) : read_shallow(reader)
    end
    return fields
end

"An object or array of which nothing is needed but what it is."
struct Skipped
    kind::String
end

"The next value; of an object or an array only what it is, whatever its size."
function read_shallow(reader::Reader)
    byte = next_byte(reader)
    byte == UInt8('{') || byte == UInt8('[') || return read_value(reader)
    skip_value(reader)
    return Skipped(byte == UInt8('{') ? "an object" : "an array")
end

function require_known_fields(body, known)
    unknown = sort!([name for name in keys(body) if !(name in known)])
    isempty(unknown) && return
    throw(invalid_instances(["there is no field $(shown(name)) here; there are $(join(known, ", "))" for name in unknown]))
end

"The request's parameters, checked against those that the model knows; null is as if it were absent."
function read_parameters(body, accepts, ignored = (); where_ = "parameters")
    given = get(body, "parameters", nothing)
    given === nothing && return Dict{String,Any}()
    given isa Dict || throw(invalid_instances(["$where_ must be an object, got $(kind(given))"]))
    problems = String[]
    for name in sort!(collect(keys(given)))
        if !(name in accepts || name in ignored)
            known = isempty(accepts) ? "this model knows none" : "this model knows $(join(accepts, ", "))"
            push!(problems, "$where_: there is no $(shown(name)); $known")
        elseif name in FLAGS && !(given[name] isa Union{Bool,Nothing})
            push!(problems, "$where_.$name: expected true or false, got $(shown(given[name]))")
        end
    end
    isempty(problems) || throw(invalid_instances(problems))
    return Dict{String,Any}(name => value for (name, value) in given if value !== nothing && name in accepts)
end

"Of classifiers: the probability of each class instead of the class, and the names of the classes next to them."
const OF_CLASSIFIERS = ("probabilities", "classes")
"In which form outputs come: of a request for all, and of one output."
const BINARY_OUTPUT, BINARY = "binary_data_output", "binary_data"
const FLAGS = (OF_CLASSIFIERS..., BINARY_OUTPUT, BINARY)

"""
A caller's value as Julia's: numbers as `Float64` or `Int64` by the input's datatype, null as `missing`. `dimension` of the
input's shape is where the value stands; `place()` says where in the request that is.
"""
function checked(value, input::Tensor, dimension, place, problems)
    (value === nothing || length(problems) >= ENOUGH_PROBLEMS) && return missing
    if dimension <= length(input.shape)
        size = input.shape[dimension]
        if !(value isa Vector)
            push!(problems, "$(place()): expected an array, got $(kind(value))")
        elseif size != -1 && size != length(value)
            push!(problems, "$(place()): expected $size values, got $(length(value))")
        else
            return [
                checked(inner, input, dimension + 1, () -> "$(place())[$(index - 1)]", problems) for
                (index, inner) in enumerate(value)
            ]
        end
        return missing
    end
    wrong = fault(value, input.datatype)
    if isempty(wrong)
        found = typed(value, input.datatype)
        input.categories === nothing || found in input.categories || (wrong = unknown_category(value, input))
        isempty(wrong) && return found
    end
    push!(problems, "$(place()): $wrong")
    return missing
end

"What is wrong with a single value for a datatype; an empty string where it fits."
function fault(value, datatype)
    if haskey(INTEGERS, datatype)
        is_integer(value) || is_whole(value) || return "expected an integer, got $(shown(value))"
        low, high = INTEGERS[datatype]
        return low <= value <= high ? "" : "expected $datatype, got $(shown(value)), which does not fit"
    elseif haskey(FLOATS, datatype)
        is_integer(value) || value isa Real && !(value isa Bool) || return "expected a number, got $(shown(value))"
        value isa AbstractFloat && isinf(value) && return "expected a finite number, got an infinite one"
        number = Float64(value)
        fits = isfinite(number) && abs(number) <= FLOATS[datatype]
        return fits ? "" : "expected $datatype, got $(shown(value)), which does not fit"
    elseif datatype == "BOOL"
        return value isa Bool ? "" : "expected true or false, got $(shown(value))"
    elseif datatype == "BYTES"
        return value isa AbstractString ? "" : "expected a string, got $(shown(value))"
    end
    return "the signature says $datatype, which is not a datatype"
end

is_integer(value) = value isa Integer && !(value isa Bool)
"An integer that was written with a fraction or an exponent, such as 1.0: exact up to 2^53."
is_whole(value) = value isa AbstractFloat && isinteger(value) && abs(value) <= 2.0^53
is_datatype(name) = haskey(INTEGERS, name) || haskey(FLOATS, name) || name in ("BOOL", "BYTES")

"A value that fits its datatype, as Julia's own: `Float64`, `Int64` (`UInt64` of UINT64), `Bool` or `String`."
typed(value, datatype) =
    haskey(FLOATS, datatype) ? Float64(value) :
    datatype == "UINT64" ? UInt64(value) : haskey(INTEGERS, datatype) ? Int64(value) : value

function unknown_category(value, input::Tensor)
    known = join((shown(category) for category in first_items(input.categories, 10)), ", ")
    more = length(input.categories) > 10 ? ", …" : ""
    return "expected one of $known$more, got $(shown(value))"
end

first_items(items, count) = @view items[1:min(count, length(items))]

kind(skipped::Skipped) = skipped.kind
kind(::Dict) = "an object"
kind(::Vector) = "an array"
kind(::AbstractString) = "a string"
kind(::Bool) = "a boolean"
kind(::Nothing) = "null"
kind(_) = "a number"

"A caller's value in a message: short, and JSON."
function shown(value)
    value isa Union{Dict,Vector,Skipped} && return kind(value)
    value isa BigInt && ndigits(value) > 40 && return "a number with many digits"
    text = String(encode(value))
    return length(text) <= 40 ? text : first(text, 37) * "…"
end
