# From a caller's JSON to rows in the order of the signature. Every problem says where it is.

const ENOUGH_PROBLEMS = 11  # ten are shown, one more says that there are more

const INTEGERS = Dict{String,Tuple{BigInt,BigInt}}(
    ("INT$bits" => (-big(2)^(bits - 1), big(2)^(bits - 1) - 1) for bits in (8, 16, 32, 64))...,
    ("UINT$bits" => (big(0), big(2)^bits - 1) for bits in (8, 16, 32, 64))...,
)
const FLOATS = Dict("FP16" => 65504.0, "FP32" => 3.4028234663852886e38, "FP64" => Inf)

"A request for predictions, checked. `outputs` are those that the caller wants, by name; nothing for all."
struct Scoring
    rows::Rows
    parameters::Dict{String,Any}
    id::Union{String,Nothing}
    outputs::Union{Vector{String},Nothing}
end
Scoring(rows, parameters) = Scoring(rows, parameters, nothing, nothing)

"Parse a body; a Problem says at which line and column it is not JSON."
function parse_body(content)
    try
        return parse_json(content)
    catch error
        error isa JSONError || rethrow()
        line = 1 + count(isequal(0x0a), @view content[1:error.offset])
        column = error.offset - something(findprev(isequal(0x0a), content, error.offset), 0) + 1
        throw(malformed_json("the body is not JSON: $(error.message) at line $line, column $column"))
    end
end

"""
`{"instances": […], "parameters": {…}}`: each instance an object by field name, or an array in signature order. `accepts` are the
parameters that the model knows.
"""
function read_instances(body, signature::Signature, accepts = String[])
    body isa Dict || throw(invalid_instances(["expected an object with \"instances\", got $(kind(body))"]))
    instances = get(body, "instances", nothing)
    if !(instances isa Vector)
        what = haskey(body, "instances") ? "must be an array, got $(kind(instances))" : "is missing"
        throw(invalid_instances(["instances $what"]))
    end
    require_known_fields(body, ("instances", "parameters"))
    parameters = read_parameters(body, accepts)
    return Scoring(read_rows(instances, signature.inputs), parameters)
end

function require_known_fields(body, known)
    unknown = sort!([name for name in keys(body) if !(name in known)])
    isempty(unknown) && return
    throw(invalid_instances(["there is no field $(shown(name)) here; there are $(join(known, ", "))" for name in unknown]))
end

# Clients of the Open Inference Protocol send these whatever the model is; the signature says what goes in, and answers are JSON.
const OF_ANY_MODEL = ("binary_data_output", "content_type")

"The request's parameters, checked against those that the model knows; null is as if it were absent."
function read_parameters(body, accepts, ignored = ())
    given = get(body, "parameters", nothing)
    given === nothing && return Dict{String,Any}()
    given isa Dict || throw(invalid_instances(["parameters must be an object, got $(kind(given))"]))
    problems = String[]
    for name in sort!(collect(keys(given)))
        if !(name in accepts || name in ignored)
            known = isempty(accepts) ? "this model knows none" : "this model knows $(join(accepts, ", "))"
            push!(problems, "parameters: there is no $(shown(name)); $known")
        elseif name in FLAGS && !(given[name] isa Union{Bool,Nothing})
            push!(problems, "parameters.$name: expected true or false, got $(shown(given[name]))")
        end
    end
    isempty(problems) || throw(invalid_instances(problems))
    return Dict{String,Any}(name => value for (name, value) in given if value !== nothing && name in accepts)
end

"Of classifiers: the probability of each class instead of the class, and the names of the classes beside them."
const FLAGS = ("probabilities", "classes")

function read_rows(instances, inputs)
    isempty(inputs) && return Rows(inputs, AbstractVector[], instances)
    columns = fill_columns(inputs, length(instances)) do place, row
        instance = instances[row]
        instance isa Vector{Any} && length(instance) == length(inputs) && return instance[place]
        instance isa Dict{String,Any} && length(instance) == length(inputs) && return get(instance, inputs[place].name, NOT_GIVEN)
        return NOT_GIVEN
    end
    columns === nothing || return Rows(inputs, columns, length(instances))
    problems = String[]
    for (index, instance) in enumerate(instances)
        explain_row(instance, inputs, "instances[$(index - 1)]", problems)
        length(problems) >= ENOUGH_PROBLEMS && break
    end
    throw(invalid_instances(problems))
end

function explain_row(instance, inputs, place, problems)
    if instance isa Dict
        names = [input.name for input in inputs]
        for name in sort!(collect(keys(instance)))
            name in names || push!(problems, "$place: there is no input $(shown(name))")
        end
        append!(problems, ["$place.$name is missing" for name in names if !haskey(instance, name)])
        for input in inputs
            haskey(instance, input.name) || continue
            read_value(instance[input.name], input, 2, () -> "$place.$(input.name)", problems)
        end
    elseif instance isa Vector
        length(instance) == length(inputs) ||
            return push!(problems, "$place: expected $(length(inputs)) values, got $(length(instance))")
        for (column, input) in enumerate(inputs)
            read_value(instance[column], input, 2, () -> "$place[$(column - 1)]", problems)
        end
    else
        push!(problems, "$place: expected an object or an array, got $(kind(instance))")
    end
end

"""
A caller's value as Julia's: numbers as `Float64` or `Int64` by the input's datatype, null as `missing`. `dimension` of the
input's shape is where the value stands; `place()` says where in the request that is.
"""
function read_value(value, input::Tensor, dimension, place, problems)
    (value === nothing || length(problems) >= ENOUGH_PROBLEMS) && return missing
    if dimension <= length(input.shape)
        size = input.shape[dimension]
        if !(value isa Vector)
            push!(problems, "$(place()): expected an array, got $(kind(value))")
        elseif size != -1 && size != length(value)
            push!(problems, "$(place()): expected $size values, got $(length(value))")
        else
            return [
                read_value(inner, input, dimension + 1, () -> "$(place())[$(index - 1)]", problems) for
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

struct Tensors
    name::String
    shape::Vector{Int}
    data::Vector{Any}  # flat
end

"""
An Open Inference Protocol request: a tensor for each input, or one tensor [rows, inputs] for all of them. `outputs` are the names of
those that there are.
"""
function read_tensors(body, signature::Signature, accepts = String[], outputs = output_names(signature))
    body isa Dict || throw(invalid_instances(["expected an object with \"inputs\", got $(kind(body))"]))
    id = get(body, "id", nothing)
    id isa Union{String,Nothing} || throw(invalid_instances(["id must be a string, got $(kind(id))"]))
    given = get(body, "inputs", nothing)
    given isa Vector && !isempty(given) || throw(invalid_instances(["inputs must be an array with at least one tensor"]))
    require_known_fields(body, ("id", "parameters", "inputs", "outputs", "model_name", "model_version"))
    parameters = read_parameters(body, accepts, OF_ANY_MODEL)
    wanted = read_outputs(get(body, "outputs", nothing), outputs)
    tensors = [read_tensor_of(tensor, "inputs[$(index - 1)]") for (index, tensor) in enumerate(given)]
    return Scoring(tensor_rows(tensors, signature.inputs), parameters, id, wanted)
end

"The names of the outputs that the caller wants; nothing for all."
function read_outputs(given, known)
    given === nothing && return nothing
    given isa Vector || throw(invalid_instances(["outputs must be an array, got $(kind(given))"]))
    isempty(given) && return nothing
    return map(enumerate(given)) do (index, output)
        name = output isa Dict ? get(output, "name", nothing) : nothing
        name isa String || throw(invalid_instances(["outputs[$(index - 1)].name must be a string"]))
        name in known ||
            throw(invalid_instances(["outputs[$(index - 1)]: there is no output $(shown(name)); there are $(join(known, ", "))"]))
        name
    end
end

function tensor_rows(tensors, inputs)
    isempty(inputs) && return Rows(inputs, AbstractVector[], rows_of(first(tensors)))
    names = [input.name for input in inputs]
    together = length(tensors) == 1 && length(inputs) > 1 && !(first(tensors).name in names)
    # By column, the values of the rows.
    values = together ? matrix_columns(first(tensors), length(inputs)) : named_columns(tensors, inputs)
    count = minimum(length, values)
    columns = fill_columns((place, row) -> values[place][row], inputs, count)
    columns === nothing || return Rows(inputs, columns, count)
    problems = String[]
    for row in 1:count, (place, input) in enumerate(inputs)
        read_value(values[place][row], input, 2, () -> "$(input.name)[$(row - 1)]", problems)
        length(problems) >= ENOUGH_PROBLEMS && break
    end
    throw(invalid_instances(problems))
end

function read_tensor_of(given, place)
    given isa Dict || throw(invalid_instances(["$place: expected an object, got $(kind(given))"]))
    name, shape, datatype, data = (get(given, key, nothing) for key in ("name", "shape", "datatype", "data"))
    name isa String || throw(invalid_instances(["$place.name must be a string"]))
    datatype isa String && is_datatype(datatype) ||
        throw(invalid_instances(["$place.datatype: $(shown(datatype)) is not a datatype"]))
    is_shape(shape) || throw(invalid_instances(["$place.shape must be an array of sizes"]))
    any(iszero, shape[2:end]) && throw(invalid_instances(["$place.shape: rows without values, [$(join(shape, ", "))]"]))
    data isa Vector || throw(invalid_instances(["$place.data must be an array (binary tensors are not taken)"]))
    flat = any(item -> item isa Vector, data) ? flatten(data) : data
    total = prod(big, shape)
    length(flat) == total ||
        throw(invalid_instances(["$place: shape [$(join(shape, ", "))] means $total values, data has $(length(flat))"]))
    problems = String[]
    for (index, value) in enumerate(flat)
        value === nothing && continue
        wrong = fault(value, datatype)
        isempty(wrong) || push!(problems, "$place.data[$(index - 1)]: $wrong")
        length(problems) >= ENOUGH_PROBLEMS && break
    end
    isempty(problems) || throw(invalid_instances(problems))
    return Tensors(name, Vector{Int}(shape), flat)
end

is_shape(shape) = shape isa Vector && !isempty(shape) && all(size -> size isa Int64 && 0 <= size < 2^31, shape)

"The values of a nested array in row-major order; a loop, since a caller decides how deep it is."
function flatten(data)
    flat, waiting = Any[], Any[(data, 1)]
    while !isempty(waiting)
        items, at = pop!(waiting)
        while at <= length(items)
            item = items[at]
            at += 1
            if item isa Vector
                push!(waiting, (items, at))
                items, at = item, 1
            else
                push!(flat, item)
            end
        end
    end
    return flat
end

function rows_of(tensor::Tensors)
    return isempty(tensor.data) ? Any[] : parts_of(tensor.data, prod(tensor.shape[2:end]))
end

function matrix_columns(tensor::Tensors, width)
    length(tensor.shape) == 2 && last(tensor.shape) == width ||
        throw(invalid_instances(["$(tensor.name): expected shape [rows, $width], got [$(join(tensor.shape, ", "))]"]))
    return [@view tensor.data[place:width:end] for place in 1:width]
end

function named_columns(tensors, inputs)
    names = [input.name for input in inputs]
    given = Dict(tensor.name => tensor for tensor in tensors)
    problems = ["there is no input $(shown(name))" for name in sort!(collect(keys(given))) if !(name in names)]
    append!(problems, ["input $name is missing" for name in names if !haskey(given, name)])
    length(given) < length(tensors) && push!(problems, "an input is there twice")
    isempty(problems) || throw(invalid_instances(problems))
    counts = [first(given[name].shape) for name in names]
    if length(unique(counts)) > 1
        said = join(("$name: $count" for (name, count) in zip(names, counts)), ", ")
        throw(invalid_instances(["the inputs differ in their number of rows: $said"]))
    end
    return map(inputs) do input
        tensor = given[input.name]
        length(input.shape) <= 1 && tensor.shape[2:end] in ([], [1]) && return tensor.data
        return Any[nested(row, tensor.shape[2:end]) for row in rows_of(tensor)]
    end
end

"The values of one row, flat, in the form of its shape."
nested(flat, shape) = isempty(shape) ? only(flat) : foldr((size, values) -> parts_of(values, size), shape[2:end], init = flat)

parts_of(values, size) = Any[values[at:(at+size-1)] for at in 1:size:length(values)]

first_items(items, count) = @view items[1:min(count, length(items))]

kind(::Dict) = "an object"
kind(::Vector) = "an array"
kind(::AbstractString) = "a string"
kind(::Bool) = "a boolean"
kind(::Nothing) = "null"
kind(_) = "a number"

"A caller's value in a message: short, and JSON."
function shown(value)
    value isa Union{Dict,Vector} && return kind(value)
    value isa BigInt && ndigits(value) > 40 && return "a number with many digits"
    text = String(encode(value))
    return length(text) <= 40 ? text : first(text, 37) * "…"
end
