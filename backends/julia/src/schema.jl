# From a caller's JSON to rows in the order of the signature, and back. Every problem says where it is.

const ENOUGH_PROBLEMS = 11  # ten are shown, one more says that there are more

const INTEGERS = Dict{String,Tuple{BigInt,BigInt}}(
    ("INT$bits" => (-big(2)^(bits - 1), big(2)^(bits - 1) - 1) for bits in (8, 16, 32, 64))...,
    ("UINT$bits" => (big(0), big(2)^bits - 1) for bits in (8, 16, 32, 64))...,
)
const FLOATS = Dict("FP16" => 65504.0, "FP32" => 3.4028234663852886e38, "FP64" => Inf)

"A request for predictions, checked."
struct Scoring
    rows::Vector{Any}
    parameters::Dict{String,Any}
    id::Union{String,Nothing}
end

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

"`{\"instances\": […], \"parameters\": {…}}`: each instance an object by field name, or an array in signature order."
function read_instances(body, signature::Signature)
    body isa Dict || throw(invalid_instances(["expected an object with \"instances\", got $(kind(body))"]))
    instances = get(body, "instances", nothing)
    parameters = read_parameters(body)
    if !(instances isa Vector)
        what = haskey(body, "instances") ? "must be an array, got $(kind(instances))" : "is missing"
        throw(invalid_instances(["instances $what"]))
    end
    isempty(signature.inputs) && return Scoring(instances, parameters, nothing)
    problems, rows = String[], Any[]
    for (index, instance) in enumerate(instances)
        push!(rows, read_row(instance, signature.inputs, "instances[$(index - 1)]", problems))
        length(problems) >= ENOUGH_PROBLEMS && break
    end
    isempty(problems) || throw(invalid_instances(problems))
    return Scoring(rows, parameters, nothing)
end

function read_parameters(body)
    parameters = get(body, "parameters", nothing)
    parameters === nothing && return Dict{String,Any}()
    parameters isa Dict || throw(invalid_instances(["parameters must be an object, got $(kind(parameters))"]))
    return parameters
end

function read_row(instance, inputs, place, problems)
    row = Vector{Any}(undef, length(inputs))
    if instance isa Dict
        known = count(input -> haskey(instance, input.name), inputs)
        if known < length(instance)
            names = [input.name for input in inputs]
            for name in sort!(collect(keys(instance)))
                name in names || push!(problems, "$place: there is no input $(shown(name))")
            end
        end
        if known < length(inputs)
            append!(problems, ["$place.$(input.name) is missing" for input in inputs if !haskey(instance, input.name)])
            return row
        end
        for (column, input) in enumerate(inputs)
            row[column] = read_value(instance[input.name], input, 2, () -> "$place.$(input.name)", problems)
        end
    elseif instance isa Vector
        if length(instance) != length(inputs)
            push!(problems, "$place: expected $(length(inputs)) values, got $(length(instance))")
            return row
        end
        for (column, input) in enumerate(inputs)
            row[column] = read_value(instance[column], input, 2, () -> "$place[$(column - 1)]", problems)
        end
    else
        push!(problems, "$place: expected an object or an array, got $(kind(instance))")
    end
    return row
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
    isempty(wrong) && return typed(value, input.datatype)
    push!(problems, "$(place()): $wrong")
    return missing
end

typed(value, datatype) = haskey(FLOATS, datatype) ? Float64(value) : value isa BigInt ? UInt64(value) : value

"What is wrong with a single value for a datatype; an empty string where it fits."
function fault(value, datatype)
    if haskey(INTEGERS, datatype)
        is_integer(value) || return "expected an integer, got $(shown(value))"
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
is_datatype(name) = haskey(INTEGERS, name) || haskey(FLOATS, name) || name in ("BOOL", "BYTES")

struct Tensors
    name::String
    shape::Vector{Int}
    data::Vector{Any}  # flat
end

"An Open Inference Protocol request: a tensor for each input, or one tensor [rows, inputs] for all of them."
function read_tensors(body, signature::Signature)
    body isa Dict || throw(invalid_instances(["expected an object with \"inputs\", got $(kind(body))"]))
    id = get(body, "id", nothing)
    id isa Union{String,Nothing} || throw(invalid_instances(["id must be a string, got $(kind(id))"]))
    given = get(body, "inputs", nothing)
    given isa Vector && !isempty(given) ||
        throw(invalid_instances(["inputs must be an array with at least one tensor"]))
    parameters = read_parameters(body)
    tensors = [read_tensor_of(tensor, "inputs[$(index - 1)]") for (index, tensor) in enumerate(given)]
    inputs = signature.inputs
    isempty(inputs) && return Scoring(rows_of(first(tensors)), parameters, id)
    names = [input.name for input in inputs]
    together = length(tensors) == 1 && length(inputs) > 1 && !(first(tensors).name in names)
    rows = together ? matrix_rows(first(tensors), length(inputs)) : column_rows(tensors, inputs)
    problems = String[]
    checked = Any[
        Any[
            read_value(row[column], input, 2, () -> "$(input.name)[$(index - 1)]", problems) for
            (column, input) in enumerate(inputs)
        ] for (index, row) in enumerate(rows)
    ]
    isempty(problems) || throw(invalid_instances(problems))
    return Scoring(checked, parameters, id)
end

function read_tensor_of(given, place)
    given isa Dict || throw(invalid_instances(["$place: expected an object, got $(kind(given))"]))
    name, shape, datatype, data = (get(given, key, nothing) for key in ("name", "shape", "datatype", "data"))
    name isa String || throw(invalid_instances(["$place.name must be a string"]))
    datatype isa String && is_datatype(datatype) ||
        throw(invalid_instances(["$place.datatype: $(shown(datatype)) is not a datatype"]))
    is_shape(shape) || throw(invalid_instances(["$place.shape must be an array of sizes"]))
    any(iszero, shape[2:end]) &&
        throw(invalid_instances(["$place.shape: rows without values, [$(join(shape, ", "))]"]))
    data isa Vector || throw(invalid_instances(["$place.data must be an array (binary tensors are not taken)"]))
    flat = flatten(data)
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

function matrix_rows(tensor::Tensors, width)
    length(tensor.shape) == 2 && last(tensor.shape) == width || throw(
        invalid_instances(["$(tensor.name): expected shape [rows, $width], got [$(join(tensor.shape, ", "))]"]),
    )
    return rows_of(tensor)
end

function column_rows(tensors, inputs)
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
    columns = map(inputs) do input
        tensor = given[input.name]
        length(input.shape) <= 1 && tensor.shape[2:end] in ([], [1]) && return tensor.data
        return Any[nested(row, tensor.shape[2:end]) for row in rows_of(tensor)]
    end
    return [Any[column[index] for column in columns] for index in 1:minimum(length, columns)]
end

"The values of one row, flat, in the form of its shape."
nested(flat, shape) = isempty(shape) ? only(flat) : foldr((size, values) -> parts_of(values, size), shape[2:end], init = flat)

parts_of(values, size) = Any[values[at:at+size-1] for at in 1:size:length(values)]

"Predictions as one Open Inference Protocol tensor; what has no such form, as text that is JSON."
function tensor_outputs(predictions, signature::Signature)
    declared = isempty(signature.outputs) ? nothing : first(signature.outputs)
    shape, data = [length(predictions)], predictions
    while !isempty(data) && all(item -> item isa AbstractVector && length(item) == length(first(data)), data)
        push!(shape, length(first(data)))
        data = reduce(vcat, data)
    end
    if any(item -> item isa Union{AbstractVector,AbstractDict,NamedTuple}, data)
        shape, data = [length(predictions)], [String(encode(item)) for item in predictions]
    end
    output = object(
        "name" => declared === nothing ? "prediction" : declared.name,
        "shape" => shape,
        "datatype" => datatype_of(data, declared),
        "data" => data,
    )
    return [output]
end

function datatype_of(data, declared)
    declared !== nothing && all(value -> isempty(fault(value, declared.datatype)), first_items(data, 100)) &&
        return declared.datatype
    sample = isempty(data) ? 0.0 : first(data)
    sample isa Bool && return "BOOL"
    sample isa AbstractString && return "BYTES"
    return sample isa Integer ? "INT64" : "FP64"
end

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
