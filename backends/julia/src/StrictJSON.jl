"""
A small reader and writer of JSON (RFC 8259) that takes nothing else: no NaN, no comments, no lone surrogates, UTF-8 only,
and a bound on depth. Whole numbers stay whole, however long; `1.0` stays a `Float64`. Where an object has a name twice, its
last value counts, as in the other languages' backends.
"""
module StrictJSON

export JSONError, encode, object, parse_json

const DEEPEST = 900
const MOST_DIGITS = 4300  # of a whole number

"Not JSON; `offset` is the byte, from 0, at which that became clear."
struct JSONError <: Exception
    message::String
    offset::Int
end
Base.showerror(io::IO, error::JSONError) = print(io, error.message)

mutable struct Reader
    bytes::Vector{UInt8}
    at::Int  # the next byte, from 1
    depth::Int
end

"Parse a whole document; JSONError says what is wrong with it, and where."
function parse_json(bytes::Vector{UInt8})
    isvalid(String, bytes) || throw(JSONError("the text is not UTF-8", first_bad_byte(bytes)))
    reader = Reader(bytes, 1, 0)
    value = read_value(reader)
    skip_space(reader)
    reader.at > length(bytes) || fail(reader, "trailing characters")
    return value
end
parse_json(text::AbstractString) = parse_json(Vector{UInt8}(codeunits(String(text))))

function first_bad_byte(bytes)
    text = String(copy(bytes))
    at = firstindex(text)
    while at <= ncodeunits(text) && isvalid(text[at])
        at = nextind(text, at)
    end
    return at - 1
end

fail(reader::Reader, message) = throw(JSONError(message, min(reader.at, length(reader.bytes) + 1) - 1))

# 0 stands for the end; as a byte of a document it is an invalid character anyway.
peek_byte(reader::Reader) = reader.at <= length(reader.bytes) ? @inbounds(reader.bytes[reader.at]) : 0x00

function skip_space(reader::Reader)
    while reader.at <= length(reader.bytes)
        byte = @inbounds reader.bytes[reader.at]
        (byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09) || return
        reader.at += 1
    end
end

function read_value(reader::Reader)
    skip_space(reader)
    reader.at > length(reader.bytes) && fail(reader, "the text ends early")
    byte = peek_byte(reader)
    byte == UInt8('{') && return read_object(reader)
    byte == UInt8('[') && return read_array(reader)
    byte == UInt8('"') && return read_string(reader)
    byte == UInt8('t') && return read_word(reader, "true", true)
    byte == UInt8('f') && return read_word(reader, "false", false)
    byte == UInt8('n') && return read_word(reader, "null", nothing)
    (byte == UInt8('-') || is_digit(byte)) && return read_number(reader)
    fail(reader, "invalid character")
end

function read_word(reader::Reader, word, value)
    for expected in codeunits(word)
        peek_byte(reader) == expected || fail(reader, "invalid character")
        reader.at += 1
    end
    return value
end

function go_down(reader::Reader)
    reader.depth += 1
    reader.depth <= DEEPEST || fail(reader, "nested too deeply")
    reader.at += 1
end

function read_object(reader::Reader)
    go_down(reader)
    object = Dict{String,Any}()
    skip_space(reader)
    if peek_byte(reader) != UInt8('}')
        while true
            skip_space(reader)
            peek_byte(reader) == UInt8('"') || fail(reader, "object keys must be strings")
            name = read_string(reader)
            skip_space(reader)
            peek_byte(reader) == UInt8(':') || fail(reader, "expected ':'")
            reader.at += 1
            object[name] = read_value(reader)
            skip_space(reader)
            peek_byte(reader) == UInt8(',') || break
            reader.at += 1
        end
        peek_byte(reader) == UInt8('}') || fail(reader, "expected ',' or '}'")
    end
    reader.at += 1
    reader.depth -= 1
    return object
end

function read_array(reader::Reader)
    go_down(reader)
    array = Any[]
    skip_space(reader)
    if peek_byte(reader) != UInt8(']')
        while true
            push!(array, read_value(reader))
            skip_space(reader)
            peek_byte(reader) == UInt8(',') || break
            reader.at += 1
        end
        peek_byte(reader) == UInt8(']') || fail(reader, "expected ',' or ']'")
    end
    reader.at += 1
    reader.depth -= 1
    return array
end

function read_string(reader::Reader)
    bytes = reader.bytes
    start = reader.at += 1
    while reader.at <= length(bytes)
        byte = @inbounds bytes[reader.at]
        if byte == UInt8('"')
            text = String(bytes[start:(reader.at-1)])
            reader.at += 1
            return text
        end
        byte == UInt8('\\') && return read_escaped(reader, start)
        byte < 0x20 && fail(reader, "control character in a string")
        reader.at += 1
    end
    fail(reader, "the text ends early")
end

"The rest of a string with an escape in it; `start` is its first byte."
function read_escaped(reader::Reader, start)
    bytes = reader.bytes
    text = IOBuffer()
    write(text, @view bytes[start:(reader.at-1)])
    while reader.at <= length(bytes)
        byte = @inbounds bytes[reader.at]
        if byte == UInt8('"')
            reader.at += 1
            return String(take!(text))
        elseif byte == UInt8('\\')
            reader.at += 1
            write_escape(text, reader)
        elseif byte < 0x20
            fail(reader, "control character in a string")
        else
            write(text, byte)
            reader.at += 1
        end
    end
    fail(reader, "the text ends early")
end

function write_escape(text, reader::Reader)
    letter = Char(peek_byte(reader))
    letter == 'u' && return print(text, read_unicode(reader))
    place = findfirst(isequal(letter), "\"\\/bfnrt")
    place === nothing && fail(reader, "invalid escape character in a string")
    reader.at += 1
    write(text, b"\"\\/\b\f\n\r\t"[place])
end

function read_unicode(reader::Reader)
    unit = read_unit(reader)
    0xdc00 <= unit <= 0xdfff && fail(reader, "invalid utf-16 surrogate pair")
    0xd800 <= unit <= 0xdbff || return Char(unit)
    peek_byte(reader) == UInt8('\\') || fail(reader, "invalid utf-16 surrogate pair")
    reader.at += 1
    peek_byte(reader) == UInt8('u') || fail(reader, "invalid utf-16 surrogate pair")
    low = read_unit(reader)
    0xdc00 <= low <= 0xdfff || fail(reader, "invalid utf-16 surrogate pair")
    return Char(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
end

"Four hexadecimal digits, after the u at which the reader stands."
function read_unit(reader::Reader)
    unit = UInt32(0)
    for _ in 1:4
        reader.at += 1
        byte = peek_byte(reader)
        digit =
            is_digit(byte) ? byte - 0x30 :
            0x61 <= byte <= 0x66 ? byte - 0x57 :
            0x41 <= byte <= 0x46 ? byte - 0x37 : fail(reader, "invalid character in a unicode escape")
        unit = unit << 4 | digit
    end
    reader.at += 1
    return unit
end

is_digit(byte) = 0x30 <= byte <= 0x39

function skip_digits(reader::Reader)
    is_digit(peek_byte(reader)) || fail(reader, "invalid number")
    while is_digit(peek_byte(reader))
        reader.at += 1
    end
end

function read_number(reader::Reader)
    start = reader.at
    peek_byte(reader) == UInt8('-') && (reader.at += 1)
    if peek_byte(reader) == UInt8('0')
        reader.at += 1
        is_digit(peek_byte(reader)) && fail(reader, "invalid number")
    else
        skip_digits(reader)
    end
    whole = true
    if peek_byte(reader) == UInt8('.')
        whole = false
        reader.at += 1
        skip_digits(reader)
    end
    if peek_byte(reader) in (UInt8('e'), UInt8('E'))
        whole = false
        reader.at += 1
        peek_byte(reader) in (UInt8('+'), UInt8('-')) && (reader.at += 1)
        skip_digits(reader)
    end
    whole && reader.at - start > MOST_DIGITS && fail(reader, "integer out of range")
    text = String(reader.bytes[start:(reader.at-1)])
    if whole
        short = tryparse(Int64, text)
        return short === nothing ? parse(BigInt, text) : short
    end
    number = tryparse(Float64, text)
    # Text of the grammar above that is no Float64 is one that is too large, or too small.
    number === nothing && (number = Float64(parse(BigFloat, text)))
    isfinite(number) || fail(reader, "number out of range")
    return number
end

"An object with its fields in order. To be given any types and not be compiled for each keeps starts short."
function object(@nospecialize(fields...))
    made = Pair{String,Any}[]
    for field in fields
        push!(made, Pair{String,Any}(field.first, field.second))
    end
    return made
end

"The JSON of `value`. What JSON has no number for, NaN and the infinities, is null: a missing value."
encode(@nospecialize(value); indent = 0) = take!(write_value(IOBuffer(), value, indent, 0))

# One function for all types, since one for each would have to be compiled for each.
function write_value(io::IOBuffer, @nospecialize(value), indent::Int, level::Int)
    if value isa Vector{Float64}
        write_numbers(io, value)
    elseif value isa AbstractDict || value isa AbstractVector{<:Pair}
        write_object(io, value, indent, level)
    elseif value isa NamedTuple
        write_object(io, pairs(value), indent, level)
    elseif value isa AbstractMatrix
        write_array(io, [value[row, :] for row in axes(value, 1)], indent, level)
    elseif value isa AbstractVector || value isa Tuple
        write_array(io, value, indent, level)
    elseif value isa AbstractString
        write_text(io, String(value))
    elseif value isa Symbol || value isa AbstractChar
        write_text(io, string(value))
    elseif value === nothing || value === missing
        print(io, "null")
    elseif value isa Integer
        print(io, value)
    elseif value isa Float32 || value isa Float16
        print(io, isfinite(value) ? replace(string(value), 'f' => 'e') : "null")  # Julia prints 1.0f-5
    else
        write_numbers(io, Float64(value))
    end
    return io
end

write_numbers(io::IOBuffer, number::Float64) = print(io, isfinite(number) ? number : "null")

function write_numbers(io::IOBuffer, numbers::Vector{Float64})
    print(io, '[')
    for (index, number) in enumerate(numbers)
        index > 1 && print(io, ',')
        write_numbers(io, number)
    end
    print(io, ']')
end

function write_object(io::IOBuffer, @nospecialize(fields), indent::Int, level::Int)
    print(io, '{')
    is_first = true
    for (name, value) in fields
        write_between(io, is_first, indent, level + 1)
        is_first = false
        write_text(io, string(name))
        print(io, indent > 0 ? ": " : ":")
        write_value(io, value, indent, level + 1)
    end
    is_first || write_break(io, indent, level)
    print(io, '}')
end

function write_array(io::IOBuffer, @nospecialize(items), indent::Int, level::Int)
    print(io, '[')
    is_first = true
    for item in items
        write_between(io, is_first, indent, level + 1)
        is_first = false
        write_value(io, item, indent, level + 1)
    end
    is_first || write_break(io, indent, level)
    print(io, ']')
end

function write_between(io::IOBuffer, is_first::Bool, indent::Int, level::Int)
    is_first || print(io, ',')
    write_break(io, indent, level)
end

write_break(io::IOBuffer, indent::Int, level::Int) = indent > 0 && print(io, '\n', ' '^(indent * level))

function write_text(io::IOBuffer, text::String)
    print(io, '"')
    for char in text
        if char == '"' || char == '\\'
            print(io, '\\', char)
        elseif char == '\n'
            print(io, "\\n")
        elseif !isvalid(char)
            print(io, '\ufffd')
        elseif char < ' '
            print(io, "\\u", string(UInt32(char), base = 16, pad = 4))
        else
            print(io, char)
        end
    end
    print(io, '"')
    return io
end

end
