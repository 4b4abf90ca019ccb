# The body of infer: tensors of the Open Inference Protocol, in JSON or in binary form.

const TENSOR_FIELDS = ("name", "shape", "datatype", "data", "parameters")
const BODY_FIELDS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")

"""
A tensor as a request gives it. Its values are in `columns`, one after the other in turn: the one column of its input, or, where its
name is none of an input's, those of all inputs. `read_as` are the name and the datatype that were known when they were read.
"""
mutable struct GivenTensor
    fields::Dict{String,Any}
    data::Union{Reader,Nothing}  # stands before the array, if there is one
    read_as::Any
    columns::Vector{Column}
    count::Int
    problems::Vector{String}  # of values that are not of the tensor's own datatype
    misfits::Vector{Tuple{Int,String}}  # of those that are not of the input's: at which value
end
GivenTensor() = GivenTensor(Dict{String,Any}(), nothing, nothing, Column[], 0, String[], Tuple{Int,String}[])

"""
An Open Inference Protocol request: a tensor for each input, or one tensor [rows, inputs] for all of them. `outputs` are the names of
those that there are. With `json_bytes`, only so many bytes are JSON, and the rest are those of tensors in binary form.
"""
function read_tensors(
    text::String,
    signature::Signature,
    accepts = String[],
    outputs = output_names(signature);
    json_bytes = nothing,
)
    inputs = signature.inputs
    body = read_fields(text, BODY_FIELDS, something(json_bytes, sizeof(text))) do reader, name
        name == "inputs" || return read_value(reader)
        return next_byte(reader) == UInt8('[') ? read_each_tensor(reader, inputs) : read_shallow(reader)
    end
    body isa Dict || throw(invalid_instances(["expected an object with \"inputs\", got $(kind(body))"]))
    id = get(body, "id", nothing)
    id isa Union{String,Nothing} || throw(invalid_instances(["id must be a string, got $(kind(id))"]))
    given = get(body, "inputs", nothing)
    given isa Vector && !isempty(given) || throw(invalid_instances(["inputs must be an array with at least one tensor"]))
    require_known_fields(body, BODY_FIELDS)
    # The signature says what goes in, whatever a client's content_type says.
    parameters = read_parameters(body, [accepts; BINARY_OUTPUT], ("content_type",))
    is_binary = pop!(parameters, BINARY_OUTPUT, false)
    wanted, forms = read_outputs(get(body, "outputs", nothing), outputs)
    check_tensors(given, inputs, json_bytes === nothing ? nothing : BinaryPart(text, json_bytes + 1))
    return Scoring(tensor_rows(given, inputs), parameters, id, wanted, Forms(is_binary, forms))
end

"The names of the outputs that the caller wants, nothing for all; and for which of them it says in what form."
function read_outputs(given, known)
    forms = Dict{String,Bool}()
    given === nothing && return nothing, forms
    given isa Vector || throw(invalid_instances(["outputs must be an array, got $(kind(given))"]))
    isempty(given) && return nothing, forms
    names = map(enumerate(given)) do (index, output)
        place = "outputs[$(index - 1)]"
        name = output isa Dict ? get(output, "name", nothing) : nothing
        name isa String || throw(invalid_instances(["$place.name must be a string"]))
        name in known || throw(invalid_instances(["$place: there is no output $(shown(name)); there are $(join(known, ", "))"]))
        asked = read_parameters(output, (BINARY,), ("content_type",), where_ = "$place.parameters")
        haskey(asked, BINARY) && (forms[name] = asked[BINARY])
        name
    end
    allunique(names) || throw(invalid_instances(["an output is asked for twice"]))
    return names, forms
end

function read_each_tensor(reader::Reader, inputs)
    tensors = Any[]
    each_item(reader) do
        is_wrong = !isempty(tensors) && !(last(tensors) isa GivenTensor)
        is_object = next_byte(reader) == UInt8('{')
        is_wrong ? skip_value(reader) : push!(tensors, is_object ? read_tensor_of(reader, inputs) : read_shallow(reader))
    end
    return tensors
end

function read_tensor_of(reader::Reader, inputs)
    tensor = GivenTensor()
    tensor.fields = read_fields(reader, TENSOR_FIELDS) do reader, name
        name == "data" || return read_value(reader)
        tensor.data = next_byte(reader) == UInt8('[') ? copy(reader) : nothing
        tensor.data === nothing ? read_shallow(reader) : read_data!(reader, tensor, inputs)
    end
    # What came behind the data says something else of it, or says it for the first time.
    tensor.data === nothing || tensor.read_as == described(tensor) || read_data!(copy(tensor.data), tensor, inputs)
    return tensor
end

described(tensor::GivenTensor) = get(tensor.fields, "name", nothing), get(tensor.fields, "datatype", nothing)

function prepare!(tensor::GivenTensor, inputs)
    name, datatype = tensor.read_as = described(tensor)
    tensor.count = 0
    foreach(empty!, (tensor.columns, tensor.problems, tensor.misfits))
    name isa String && datatype isa String && is_datatype(datatype) || return false
    own = Tensor(name, datatype, [-1])
    place = findfirst(input -> input.name == name, inputs)
    if isempty(inputs)  # then values stay as JSON has them
        push!(tensor.columns, Column{Any}(own, nothing, nothing, false, true, Any[], Int[], Any[]))
    else
        targets = place !== nothing ? inputs[place:place] : length(inputs) > 1 ? inputs : [own]
        append!(tensor.columns, column_for(input, datatype) for input in targets)
    end
    return true
end

function read_data!(reader::Reader, tensor::GivenTensor, inputs)
    prepare!(tensor, inputs) ? read_values!(reader, tensor) : skip_value(reader)
    return nothing
end

"Values in row-major order, nested in any way."
function read_values!(reader::Reader, tensor::GivenTensor)
    is_more = go_in(reader, ']')
    while is_more
        next_byte(reader) == UInt8('[') ? read_values!(reader, tensor) : read_value_of!(reader, tensor)
        is_more = go_on(reader, ']')
    end
end

function read_value_of!(reader::Reader, tensor::GivenTensor)
    tensor.count += 1
    max(length(tensor.problems), length(tensor.misfits)) >= ENOUGH_PROBLEMS && return skip_value(reader)
    column = tensor.columns[(tensor.count-1)%length(tensor.columns)+1]
    at, depth = reader.at, reader.depth
    read_any!(reader, column) && return
    reader.at, reader.depth = at, depth
    check_value!(tensor, column, read_shallow(reader))
end

"The slow way for a value that the fast one did not take: say what is wrong, and with what."
function check_value!(tensor::GivenTensor, column::Column, value)
    wrong = value === nothing ? "" : fault(value, last(tensor.read_as))
    if isempty(wrong)
        problems = String[]
        input = Tensor(column.input.name, column.input.datatype, [-1], column.input.categories)
        found = column isa Column{Any} ? value : checked(value, input, 2, () -> "", problems)
        append!(tensor.misfits, ((tensor.count, problem) for problem in problems))
    else
        found = missing
        push!(tensor.problems, "data[$(tensor.count - 1)]: $wrong")
    end
    add!(column, found)
    return nothing
end

"Everything that is wrong with tensors by themselves, in their order. Those in binary form are read only now."
function check_tensors(tensors, inputs, binary)
    for (index, tensor) in enumerate(tensors)
        place = "inputs[$(index - 1)]"
        tensor isa GivenTensor || throw(invalid_instances(["$place: expected an object, got $(kind(tensor))"]))
        name, shape, datatype, data = (get(tensor.fields, key, nothing) for key in TENSOR_FIELDS)
        size = binary_size(tensor, place, binary)
        name isa String || throw(invalid_instances(["$place.name must be a string"]))
        datatype isa String && is_datatype(datatype) ||
            throw(invalid_instances(["$place.datatype: $(shown(datatype)) is not a datatype"]))
        is_shape(shape) || throw(invalid_instances(["$place.shape must be an array of sizes"]))
        any(iszero, shape[2:end]) && throw(invalid_instances(["$place.shape: rows without values, [$(join(shape, ", "))]"]))
        size === nothing || read_binary!(tensor, inputs, place, prod(big, shape), take_bytes(binary, size, place))
        tensor.data === nothing &&
            size === nothing &&
            throw(
                invalid_instances([
                    "$place.data must be an array, or parameters.$BINARY_SIZE the number of its bytes behind the JSON",
                ]),
            )
        total = prod(big, shape)
        tensor.count == total ||
            throw(invalid_instances(["$place: shape [$(join(shape, ", "))] means $total values, data has $(tensor.count)"]))
        isempty(tensor.problems) || throw(invalid_instances(["$place.$problem" for problem in tensor.problems]))
    end
    binary === nothing || require_end(binary)
end

is_shape(shape) = shape isa Vector && !isempty(shape) && all(size -> size isa Int64 && 0 <= size < 2^31, shape)

shape_of(tensor::GivenTensor) = Vector{Int}(tensor.fields["shape"])
name_of(tensor::GivenTensor) = tensor.fields["name"]::String

function tensor_rows(tensors, inputs)
    isempty(inputs) && return Rows(plain_rows(first(tensors)))
    names = [input.name for input in inputs]
    together = length(tensors) == 1 && length(inputs) > 1 && !(name_of(first(tensors)) in names)
    columns, problems = together ? matrix_columns(first(tensors), inputs) : named_columns(tensors, inputs)
    isempty(problems) || throw(invalid_instances(first_items(map(last, sort!(problems)), ENOUGH_PROBLEMS)))
    return Rows(inputs, columns, minimum(length, columns))
end

# Each gives the columns, and problems as (row, place of the input, text).

function matrix_columns(tensor::GivenTensor, inputs)
    shape, width = shape_of(tensor), length(inputs)
    length(shape) == 2 && last(shape) == width ||
        throw(invalid_instances(["$(name_of(tensor)): expected shape [rows, $width], got [$(join(shape, ", "))]"]))
    problems = map(tensor.misfits) do (at, problem)
        row, place = divrem(at - 1, width)
        (row, place + 1, "$(inputs[place+1].name)[$row]$problem")
    end
    for (place, input) in enumerate(inputs), row in 1:min(first(shape), ENOUGH_PROBLEMS)
        value = length(input.shape) > 1 ? or_null(finished(tensor.columns[place])[row]) : nothing
        explain_cell!(problems, value, input, row, place)
    end
    return AbstractVector[finished(column) for column in tensor.columns], problems
end

function explain_cell!(problems, value, input, row, place)
    found = String[]
    checked(value, input, 2, () -> "$(input.name)[$(row - 1)]", found)
    append!(problems, ((row - 1, place, problem) for problem in found))
end

function named_columns(tensors, inputs)
    names = [input.name for input in inputs]
    given = Dict(name_of(tensor) => tensor for tensor in tensors)
    wrong = ["there is no input $(shown(name))" for name in sort!(collect(keys(given))) if !(name in names)]
    append!(wrong, ["input $name is missing" for name in names if !haskey(given, name)])
    length(given) < length(tensors) && push!(wrong, "an input is there twice")
    isempty(wrong) || throw(invalid_instances(wrong))
    counts = [first(shape_of(given[name])) for name in names]
    if length(unique(counts)) > 1
        said = join(("$name: $count" for (name, count) in zip(names, counts)), ", ")
        throw(invalid_instances(["the inputs differ in their number of rows: $said"]))
    end
    problems = Tuple{Int,Int,String}[]
    columns = AbstractVector[named_column(given[input.name], input, place, problems) for (place, input) in enumerate(inputs)]
    return columns, problems
end

function named_column(tensor::GivenTensor, input, place, problems)
    count, sizes... = shape_of(tensor)
    wanted, column = input.shape[2:end], only(tensor.columns)
    width = prod(sizes)
    fits = isempty(wanted) ? sizes in ([], [1]) : is_of_shape(sizes, wanted)
    if fits
        for (at, problem) in tensor.misfits
            row, inner = divrem(at - 1, width)
            push!(problems, (row, place, "$(input.name)[$row]$(isempty(wanted) ? "" : inner_place(inner, sizes))$problem"))
        end
        return isempty(wanted) ? finished(column) : rows_of(finished(column), count, sizes)
    end
    values = finished(column)
    for row in 1:min(count, ENOUGH_PROBLEMS)
        flat = Any[or_null(value) for value in values[((row-1)*width+1):(row*width)]]
        explain_cell!(problems, nested(flat, sizes), input, row, place)
    end
    return finished(column)
end

is_of_shape(sizes, wanted) = length(sizes) == length(wanted) && all(w in (-1, size) for (size, w) in zip(sizes, wanted))

"Where the value of that number, from 0, stands in an array of such sizes."
function inner_place(number, sizes)
    place = ""
    for size in reverse(sizes)
        number, index = divrem(number, size)
        place = "[$index]$place"
    end
    return place
end

"Each row's values in the form of the sizes."
function rows_of(values, count, sizes)
    width = prod(sizes)
    return Any[nested(narrowed(values[((row-1)*width+1):(row*width)]), sizes) for row in 1:count]
end

narrowed(values) = has_missing(values) ? values : without_missing(values)

"The values of one row, flat, in the form of its sizes."
nested(flat, sizes) = isempty(sizes) ? only(flat) : foldr((size, values) -> parts_of(values, size), sizes[2:end], init = flat)

parts_of(values, size) = [values[at:(at+size-1)] for at in 1:size:length(values)]

"As JSON has it."
or_null(value) = ismissing(value) ? nothing : value

"Of a model without a signature: the rows of its one tensor, as JSON has them."
function plain_rows(tensor::GivenTensor)
    count, sizes... = shape_of(tensor)
    values, width = only(tensor.columns).values, prod(sizes)
    return Any[values[((row-1)*width+1):(row*width)] for row in 1:count]
end
