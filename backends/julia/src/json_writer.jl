# The writer of JSON: numbers and texts go straight into one vector of bytes.

"An object with its fields in order. To be given any types and not be compiled for each keeps starts short."
function object(@nospecialize(fields...))
    made = Pair{String,Any}[]
    for field in fields
        push!(made, Pair{String,Any}(field.first, field.second))
    end
    return made
end

"Columns that are written as an array of objects, one for each row."
struct Records
    names::Vector{String}
    columns::Vector{AbstractVector}
end

const RowOf{T} = SubArray{T,1,Matrix{T},Tuple{Int,Base.Slice{Base.OneTo{Int}}},true}
"Vectors whose items are written without a look at the type of each."
const TypedVector = Union{
    Vector{Float64},
    Vector{Float32},
    Vector{Int64},
    Vector{Bool},
    Vector{String},
    Vector{Union{Missing,Float64}},
    Vector{Union{Missing,Int64}},
    Vector{Union{Missing,Bool}},
    Vector{Union{Missing,String}},
    RowOf{Float64},
    RowOf{Float32},
}

mutable struct Writer
    bytes::Vector{UInt8}
    size::Int
    const indent::Int
end

"The JSON of `value`. What JSON has no number for, NaN and the infinities, is null: a missing value."
function encode(@nospecialize(value); indent = 0)
    writer = Writer(Vector{UInt8}(undef, 256), 0, indent)
    write_value(writer, value, 0)
    return resize!(writer.bytes, writer.size)
end

function make_room(writer::Writer, count)
    needed = writer.size + count
    needed <= length(writer.bytes) || resize!(writer.bytes, max(2length(writer.bytes), needed))
end

function put_byte(writer::Writer, char)
    make_room(writer, 1)
    @inbounds writer.bytes[writer.size+=1] = UInt8(char)
    return nothing
end

put_bytes(writer::Writer, text::String) = put_bytes(writer, codeunits(text), 1, sizeof(text))

function put_bytes(writer::Writer, bytes, first, count)
    make_room(writer, count)
    copyto!(writer.bytes, writer.size + 1, bytes, first, count)
    writer.size += count
    return nothing
end

# One function for all types, since one for each would have to be compiled for each.
function write_value(writer::Writer, @nospecialize(value), level::Int)
    if value isa TypedVector && writer.indent == 0
        write_items(writer, value)
    elseif value isa Records
        write_records(writer, value)
    elseif value isa AbstractDict || value isa AbstractVector{<:Pair}
        write_object(writer, value, level)
    elseif value isa NamedTuple
        write_object(writer, pairs(value), level)
    elseif value isa AbstractMatrix
        write_array(writer, [value[row, :] for row in axes(value, 1)], level)
    elseif value isa AbstractVector || value isa Tuple
        write_array(writer, value, level)
    else
        write_scalar(writer, value)
    end
    return nothing
end

function write_scalar(writer::Writer, @nospecialize(value))
    if value isa AbstractString
        write_item(writer, String(value))
    elseif value isa Symbol || value isa AbstractChar
        write_item(writer, string(value))
    elseif value === nothing || value === missing
        put_bytes(writer, "null")
    elseif value isa Union{Bool,Int64,Float64,Float32,Float16}
        write_item(writer, value)
    elseif value isa Integer
        put_bytes(writer, string(value))
    else
        write_item(writer, Float64(value))
    end
    return nothing
end

function write_items(writer::Writer, values)
    put_byte(writer, '[')
    is_first = true
    for value in values
        is_first || put_byte(writer, ',')
        is_first = false
        write_item(writer, value)
        GC.safepoint()
    end
    put_byte(writer, ']')
end

write_item(writer::Writer, ::Missing) = put_bytes(writer, "null")
write_item(writer::Writer, value::Bool) = put_bytes(writer, value ? "true" : "false")

const LONGEST_FLOAT = 326  # what the function below asks for

function write_item(writer::Writer, value::Union{Float64,Float32,Float16})
    isfinite(value) || return put_bytes(writer, "null")
    make_room(writer, LONGEST_FLOAT)
    # What `print` calls; its letter for an exponent of Float32 is not JSON's.
    writer.size = Base.Ryu.writeshortest(writer.bytes, writer.size + 1, value) - 1
    return nothing
end

function write_item(writer::Writer, value::Int64)
    value < 0 && put_byte(writer, '-')
    rest, count = unsigned(abs(value)), ndigits(value)
    make_room(writer, count)
    for place in count:-1:1
        rest, digit = divrem(rest, UInt64(10))
        @inbounds writer.bytes[writer.size+place] = UInt8('0') + digit % UInt8
    end
    writer.size += count
    return nothing
end

function write_item(writer::Writer, text::String)
    isvalid(text) || (text = map(char -> isvalid(char) ? char : '\ufffd', text))
    bytes, written = codeunits(text), 0
    put_byte(writer, '"')
    for (at, byte) in enumerate(bytes)
        byte >= 0x20 && byte != UInt8('"') && byte != UInt8('\\') && continue
        put_bytes(writer, bytes, written + 1, at - written - 1)
        written = at
        put_bytes(writer, escaped(byte))
    end
    put_bytes(writer, bytes, written + 1, length(bytes) - written)
    put_byte(writer, '"')
end

escaped(byte) =
    byte == UInt8('"') ? "\\\"" :
    byte == UInt8('\\') ? "\\\\" : byte == UInt8('\n') ? "\\n" : "\\u" * string(byte, base = 16, pad = 4)

function write_object(writer::Writer, @nospecialize(fields), level::Int)
    put_byte(writer, '{')
    is_first = true
    for (name, value) in fields
        write_between(writer, is_first, level + 1)
        is_first = false
        write_item(writer, string(name))
        put_bytes(writer, writer.indent > 0 ? ": " : ":")
        write_value(writer, value, level + 1)
    end
    is_first || write_break(writer, level)
    put_byte(writer, '}')
end

function write_array(writer::Writer, @nospecialize(items), level::Int)
    put_byte(writer, '[')
    is_first = true
    for item in items
        write_between(writer, is_first, level + 1)
        is_first = false
        write_value(writer, item, level + 1)
    end
    is_first || write_break(writer, level)
    put_byte(writer, ']')
end

function write_records(writer::Writer, records::Records)
    before = [String(encode(name)) * ":" for name in records.names]
    put_byte(writer, '[')
    for row in eachindex(first(records.columns))
        put_bytes(writer, row > 1 ? ",{" : "{")
        for (place, column) in enumerate(records.columns)
            place > 1 && put_byte(writer, ',')
            put_bytes(writer, before[place])
            column isa TypedVector ? write_item_of(writer, column, row) : write_value(writer, column[row], 0)
        end
        put_byte(writer, '}')
    end
    put_byte(writer, ']')
end

write_item_of(writer::Writer, column, row) = write_item(writer, @inbounds column[row])

function write_between(writer::Writer, is_first::Bool, level::Int)
    is_first || put_byte(writer, ',')
    write_break(writer, level)
end

write_break(writer::Writer, level::Int) = writer.indent > 0 && put_bytes(writer, '\n' * ' '^(writer.indent * level))
