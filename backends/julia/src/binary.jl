# The binary tensor data extension of the Open Inference Protocol: tensors' bytes behind the JSON, little-endian and row-major.
# https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_data.md

const LENGTH_HEADER = "Inference-Header-Content-Length"
const BINARY_TYPE = "application/octet-stream"
const BINARY_SIZE = "binary_data_size"

const NUMBER_TYPES = Dict(
    "FP16" => Float16,
    "FP32" => Float32,
    "FP64" => Float64,
    ("INT$bits" => type for (bits, type) in ((8, Int8), (16, Int16), (32, Int32), (64, Int64)))...,
    ("UINT$bits" => type for (bits, type) in ((8, UInt8), (16, UInt16), (32, UInt32), (64, UInt64)))...,
)

"The bytes behind the JSON that no tensor has taken yet."
mutable struct BinaryPart
    const text::String
    at::Int
end

bytes_left(binary::BinaryPart) = sizeof(binary.text) - binary.at + 1

"What the headers say of how many bytes of the body are JSON: nothing for a body that is all JSON."
json_lengths(headers) = [value for (name, value) in headers if lowercase(name) == lowercase(LENGTH_HEADER)]

function json_bytes_of(given, body)
    length(given) == 1 && occursin(r"^[0-9]{1,18}\z", only(given)) ||
        throw(invalid_instances(["$LENGTH_HEADER must be one number of bytes, got $(shown(join(given, ", ")))"]))
    bytes = parse(Int, only(given))
    bytes <= sizeof(body) || throw(invalid_instances(["$LENGTH_HEADER is $bytes, but the body has $(sizeof(body)) bytes"]))
    return bytes
end

"How many bytes a tensor says that it has behind the JSON; nothing for one in JSON."
function binary_size(tensor::GivenTensor, place, binary)
    parameters = get(tensor.fields, "parameters", nothing)
    size = parameters isa Dict ? get(parameters, BINARY_SIZE, nothing) : nothing
    size === nothing && return nothing
    binary === nothing && throw(invalid_instances(["$place: $BINARY_SIZE needs the header $LENGTH_HEADER"]))
    get(tensor.fields, "data", nothing) === nothing && tensor.data === nothing ||
        throw(invalid_instances(["$place: give either data or $BINARY_SIZE"]))
    size isa Int64 && size >= 0 ||
        throw(invalid_instances(["$place.parameters.$BINARY_SIZE must be a whole number of bytes, got $(shown(size))"]))
    return size
end

function take_bytes(binary::BinaryPart, size, place)
    left = bytes_left(binary)
    size <= left || throw(invalid_instances(["$place: $BINARY_SIZE is $size, but $left bytes are left behind the JSON"]))
    binary.at += size
    return view(codeunits(binary.text), (binary.at-size):(binary.at-1))
end

require_end(binary::BinaryPart) =
    bytes_left(binary) == 0 || throw(invalid_instances(["$(bytes_left(binary)) bytes behind the JSON belong to no tensor"]))

"Read a tensor of `total` values from its bytes."
function read_binary!(tensor::GivenTensor, inputs, place, total, bytes)
    prepare!(tensor, inputs)
    datatype = last(tensor.read_as)
    if datatype == "BYTES"
        read_binary_texts!(tensor, bytes, place)
    else
        each = datatype == "BOOL" ? 1 : sizeof(NUMBER_TYPES[datatype])
        length(bytes) == each * total || throw(
            invalid_instances(["$place: $total values of $datatype are $(each * total) bytes, $BINARY_SIZE is $(length(bytes))"]),
        )
        # A copy, since the bytes may stand at an address where such numbers do not.
        values = datatype == "BOOL" ? bytes : reinterpret(NUMBER_TYPES[datatype], Vector{UInt8}(bytes))
        datatype == "BOOL" ? read_binary_flags!(tensor, values) : read_binary_numbers!(tensor, values, only_column(tensor))
    end
end

only_column(tensor::GivenTensor) = length(tensor.columns) == 1 ? only(tensor.columns) : nothing

# A number of any type as one of the three that columns know; NaN is a missing value.
wide(value::AbstractFloat) = isnan(value) ? nothing : Float64(value)
wide(value::Signed) = Int64(value)
wide(value::Unsigned) = UInt64(value)

function read_binary_numbers!(tensor::GivenTensor, values, column)
    for (at, value) in enumerate(values)
        give!(tensor, something(column, tensor.columns[(at-1)%length(tensor.columns)+1]), wide(ltoh(value)))
        at % 4096 == 0 && GC.safepoint()
    end
end

function read_binary_flags!(tensor::GivenTensor, bytes)
    for (at, byte) in enumerate(bytes)
        give!(tensor, tensor.columns[(at-1)%length(tensor.columns)+1], byte > 1 ? byte : byte == 1)
        at % 4096 == 0 && GC.safepoint()
    end
end

"Each text stands after its length in bytes, an unsigned number of 32 bits."
function read_binary_texts!(tensor::GivenTensor, bytes, place)
    at = 1
    while at <= length(bytes)
        ends = at + 3
        ends <= length(bytes) && (ends += foldr((byte, sum) -> 256sum + byte, bytes[at:(at+3)], init = 0))
        ends <= length(bytes) && at + 3 <= ends ||
            throw(invalid_instances(["$place: the text at byte $(at - 1) is longer than what is left of $BINARY_SIZE"]))
        text = String(Vector{UInt8}(view(bytes, (at+4):ends)))
        isvalid(text) || throw(invalid_instances(["$place: the text at byte $(at - 1) is not UTF-8"]))
        give!(tensor, tensor.columns[tensor.count%length(tensor.columns)+1], text)
        at = ends + 1
        GC.safepoint()
    end
end

"Put a value into its column, or say what is wrong with it."
function give!(tensor::GivenTensor, @nospecialize(column), value)
    tensor.count += 1
    max(length(tensor.problems), length(tensor.misfits)) >= ENOUGH_PROBLEMS && return
    value === nothing && return add!(column, missing)
    fits = column isa Column{Float64} ? accept!(column, value) : accept!(column, value)
    fits || check_value!(tensor, column, value)
    return nothing
end

"""
Take the outputs that are wanted in binary form out of `outputs`, and say how long they are; their bytes, one after the other.
Nothing where no output is. One with a missing value stays as it is where its datatype has none in that form.
"""
function pack!(outputs, forms::Forms)
    parts = Vector{UInt8}[]
    for (place, output) in enumerate(outputs)
        fields = Dict(output)
        is_binary(forms, fields["name"]) || continue
        bytes = packed(fields["data"], fields["datatype"])
        bytes === nothing && continue
        push!(parts, bytes)
        kept = filter(field -> first(field) != "data", output)
        outputs[place] = push!(kept, "parameters" => object(BINARY_SIZE => length(bytes)))
    end
    return isempty(parts) ? nothing : reduce(vcat, parts)
end

"The bytes of values of a datatype; nothing where one is missing and the datatype has no such value."
function packed(data, datatype)
    startswith(datatype, "FP") && return packed_numbers(NUMBER_TYPES[datatype], data)
    any(is_null, data) && return nothing
    datatype == "BOOL" && return UInt8[value for value in data]
    datatype == "BYTES" || return packed_numbers(NUMBER_TYPES[datatype], data)
    io = IOBuffer()
    foreach(text -> write(io, htol(UInt32(sizeof(text))), text), data)
    return take!(io)
end

packed_numbers(type, data) = Vector{UInt8}(reinterpret(UInt8, type[htol(number(type, value)) for value in data]))

number(type, value) = is_null(value) ? type(NaN) : type(value)
