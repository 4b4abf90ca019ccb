# Long: one strict parser of JSON, read from top to bottom.
"""
A small reader and writer of JSON (RFC 8259) that takes nothing else: no NaN, no comments, no lone surrogates, UTF-8 only,
and a bound on depth. Whole numbers stay whole, however long; `1.0` stays a `Float64`. A name that stands twice in one object is
refused; with `is_unique = false` its last value counts, as in a manifest.

`parse_json` makes objects and arrays of a whole document. Code that knows what to expect walks through a document by a `Reader`
instead, and makes nothing but the values that it wants.
"""
module StrictJSON

export JSONError, Records, encode, object, parse_json

const DEEPEST = 900
const MOST_DIGITS = 4300  # of a whole number
const CHECKED_AT_ONCE = 1 << 18  # bytes between two points at which the garbage collector may stop this thread

"Not JSON; `offset` is the byte, from 0, at which that became clear."
struct JSONError <: Exception
    message::String
    offset::Int
end
Base.showerror(io::IO, error::JSONError) = print(io, error.message)

"A place in a document. JSONError where the text is not UTF-8; only the first `size` bytes of it are the document."
mutable struct Reader
    const text::String
    const size::Int
    const is_unique::Bool  # whether a name that stands twice in one object is refused
    at::Int  # the next byte, from 1
    depth::Int
    function Reader(text::String, size = sizeof(text); is_unique = true)
        check_utf8(text, size)
        return new(text, size, is_unique, 1, 0)
    end
    Reader(other::Reader) = new(other.text, other.size, other.is_unique, other.at, other.depth)
end

"Another reader at the same place."
Base.copy(reader::Reader) = Reader(reader)

"Parse a whole document; JSONError says what is wrong with it, and where."
function parse_json(text::String; options...)
    reader = Reader(text; options...)
    value = read_value(reader)
    read_end(reader)
    return value
end
parse_json(text::AbstractString; options...) = parse_json(String(text); options...)
parse_json(bytes::AbstractVector{UInt8}; options...) =
    parse_json(String(copyto!(Vector{UInt8}(undef, length(bytes)), bytes)); options...)

function read_end(reader::Reader)
    skip_space(reader)
    reader.at > reader.size || fail(reader, "trailing characters")
end

"In pieces, each of which ends with a character: the check of one cannot be interrupted."
function check_utf8(text, size)
    bytes, at = codeunits(text), 1
    while at <= size
        last = min(at + CHECKED_AT_ONCE, size)
        while at < last < size && bytes[last+1] & 0xc0 == 0x80
            last -= 1
        end
        isvalid(String, view(bytes, at:last)) || throw(JSONError("the text is not UTF-8", first_bad_byte(text, at, size)))
        at = last + 1
        GC.safepoint()
    end
end

function first_bad_byte(text, at, size)
    while at <= size && isvalid(text[at])
        at = nextind(text, at)
    end
    return at - 1
end

fail(reader::Reader, message) = throw(JSONError(message, min(reader.at, reader.size + 1) - 1))

# 0 stands for the end; as a byte of a document it is an invalid character anyway.
peek_byte(reader::Reader) = reader.at <= reader.size ? @inbounds(codeunit(reader.text, reader.at)) : 0x00

is_space(byte) = byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09
is_digit(byte) = 0x30 <= byte <= 0x39

function skip_space(reader::Reader)
    while is_space(peek_byte(reader))
        reader.at += 1
    end
end

"The next byte that is no space, at which the reader then stands; 0 at the end."
function next_byte(reader::Reader)
    byte = peek_byte(reader)
    is_space(byte) || return byte
    skip_space(reader)
    return peek_byte(reader)
end

function read_value(reader::Reader)
    byte = next_byte(reader)
    byte == UInt8('{') && return read_object(reader)
    byte == UInt8('[') && return read_array(reader)
    byte == UInt8('"') && return read_text(reader)
    byte == UInt8('t') && return read_word(reader, "true", true)
    byte == UInt8('f') && return read_word(reader, "false", false)
    byte == UInt8('n') && return read_word(reader, "null", nothing)
    (byte == UInt8('-') || is_digit(byte)) && return plain_number(reader, read_number(reader))
    fail(reader, reader.at > reader.size ? "the text ends early" : "invalid character")
end

"Go behind the next value, and make nothing of it. It is checked as any other."
function skip_value(reader::Reader)
    byte = next_byte(reader)
    if byte == UInt8('{')
        each_field(_ -> skip_value(reader), reader)
    elseif byte == UInt8('[')
        each_item(() -> skip_value(reader), reader)
    elseif byte == UInt8('"')
        skip_text(reader)
    elseif byte == UInt8('-') || is_digit(byte)
        check_range(reader, read_number(reader))
    else
        read_value(reader)
    end
    return nothing
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

function go_up(reader::Reader)
    reader.depth -= 1
    reader.at += 1
end

"Go into the array or object at which the reader stands; whether there is anything in it."
function go_in(reader::Reader, closing)
    go_down(reader)
    next_byte(reader) == UInt8(closing) || return true
    go_up(reader)
    return false
end

"After an item of an array or object: go to the next one; false where there is none, and then out of it."
function go_on(reader::Reader, closing)
    GC.safepoint()
    byte = next_byte(reader)
    if byte == UInt8(',')
        reader.at += 1
        return true
    end
    byte == UInt8(closing) || fail(reader, "expected ',' or '$closing'")
    go_up(reader)
    return false
end

"What `action` makes of the name that comes next in an object; the reader then stands before its value."
@inline function with_name(action, reader::Reader)
    next_byte(reader) == UInt8('"') || fail(reader, "object keys must be strings")
    made = with_text(action, reader)
    next_byte(reader) == UInt8(':') || fail(reader, "expected ':'")
    reader.at += 1
    return made
end

"Call `action(name)` at each value of the object that comes next; it must go behind the value."
function each_field(action, reader::Reader)
    names = Set{String}()
    is_more = go_in(reader, '}')
    while is_more
        name = with_name(String, reader)
        reader.is_unique && name in names && fail(reader, "a name stands twice in one object")
        push!(names, name)
        action(name)
        is_more = go_on(reader, '}')
    end
end

"Call `action()` at each value of the array that comes next; it must go behind the value."
function each_item(action, reader::Reader)
    is_more = go_in(reader, ']')
    while is_more
        action()
        is_more = go_on(reader, ']')
    end
end

function read_object(reader::Reader)
    object = Dict{String,Any}()
    each_field(name -> object[name] = read_value(reader), reader)
    return object
end

function read_array(reader::Reader)
    array = Any[]
    each_item(() -> push!(array, read_value(reader)), reader)
    return array
end

"""
What `action` makes of the text at whose quotation mark the reader stands: a part of the document, or a String where it has escapes.
A function for each of the two types, so that neither has to be put into memory.
"""
@inline function with_text(action, reader::Reader)
    start = reader.at + 1
    skip_plain(reader) || return action(read_escaped(reader, start))
    reader.at += 1
    return action(SubString(reader.text, start, thisind(reader.text, reader.at - 2)))
end

read_text(reader::Reader) = with_text(String, reader)

skip_text(reader::Reader) = skip_plain(reader) ? (reader.at += 1) : read_escaped(reader, reader.at)

"From a quotation mark to the one that ends the text, or to the first escape; whether it is the end."
function skip_plain(reader::Reader)
    text, at = reader.text, reader.at + 1
    while at <= reader.size
        byte = @inbounds codeunit(text, at)
        if byte == UInt8('"') || byte == UInt8('\\') || byte < 0x20
            reader.at = at
            byte < 0x20 && fail(reader, "control character in a string")
            return byte == UInt8('"')
        end
        at += 1
    end
    reader.at = at
    fail(reader, "the text ends early")
end

"The rest of a string with an escape in it; `start` is its first byte."
function read_escaped(reader::Reader, start)
    text = IOBuffer()
    write(text, view(codeunits(reader.text), start:(reader.at-1)))
    while reader.at <= reader.size
        byte = peek_byte(reader)
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

"A number as it is written: where, and its first 19 digits without leading zeros."
struct Digits
    first::Int  # byte
    last::Int
    is_negative::Bool
    is_whole::Bool  # written without a fraction and an exponent
    mantissa::UInt64
    count::Int  # of digits: the mantissa has all of them up to 19
    exponent::Int  # the value is mantissa * 10^exponent
end

"The number at which the reader stands; only its grammar is checked."
function read_number(reader::Reader)
    first = reader.at
    is_negative = peek_byte(reader) == UInt8('-')
    reader.at += is_negative
    mantissa, count, whole_digits = read_digits(reader, UInt64(0), 0)
    if whole_digits > 1 && @inbounds(codeunit(reader.text, first + is_negative)) == UInt8('0')
        reader.at = first + is_negative + 1
        fail(reader, "invalid number")
    end
    is_whole, exponent = true, 0
    if peek_byte(reader) == UInt8('.')
        is_whole = false
        reader.at += 1
        mantissa, count, exponent = read_digits(reader, mantissa, count)
        exponent = -exponent
    end
    if peek_byte(reader) | 0x20 == UInt8('e')
        is_whole = false
        reader.at += 1
        exponent += read_exponent(reader)
    end
    is_whole && reader.at - first > MOST_DIGITS && fail(reader, "integer out of range")
    return Digits(first, reader.at - 1, is_negative, is_whole, mantissa, count, exponent)
end

"Digits, of which there must be one: the mantissa with them, how many it has then, and how many there were."
function read_digits(reader::Reader, mantissa, count)
    text, at = reader.text, reader.at
    while at <= reader.size
        byte = @inbounds codeunit(text, at)
        is_digit(byte) || break
        count += (count > 0) | (byte > UInt8('0'))
        mantissa = count <= 19 ? 10mantissa + (byte - UInt8('0')) : mantissa
        at += 1
    end
    found = at - reader.at
    reader.at = at
    found > 0 || fail(reader, "invalid number")
    return mantissa, count, found
end

function read_exponent(reader::Reader)
    is_negative = peek_byte(reader) == UInt8('-')
    reader.at += is_negative || peek_byte(reader) == UInt8('+')
    is_digit(peek_byte(reader)) || fail(reader, "invalid number")
    exponent = 0
    while is_digit(peek_byte(reader))
        exponent = min(10exponent + (peek_byte(reader) - UInt8('0')), 10^12)  # more than any number of digits makes up for
        reader.at += 1
    end
    return is_negative ? -exponent : exponent
end

const EXACT_POWERS = [parse(Float64, "1e$power") for power in 0:22]

"Correctly rounded; an infinity where it is too large. A whole number has no negative zero."
function float_of(reader::Reader, digits::Digits)
    mantissa, exponent = digits.mantissa, digits.exponent
    # Both factors are exact, so that the result is rounded once (Clinger, 1990).
    if digits.count <= 19 && mantissa <= 2^53 && -22 <= exponent <= 22
        power = @inbounds EXACT_POWERS[abs(exponent)+1]
        number = exponent < 0 ? Float64(mantissa) / power : Float64(mantissa) * power
        return digits.is_negative && !(digits.is_whole && mantissa == 0) ? -number : number
    end
    number = tryparse(Float64, written(reader, digits))
    # Text of the grammar above that is no Float64 is one that is too large, or too small.
    return number === nothing ? Float64(parse(BigFloat, written(reader, digits))) : number
end

written(reader::Reader, digits::Digits) = SubString(reader.text, digits.first, digits.last)

"A whole number; nothing where it has more bits."
function integer_of(digits::Digits)
    digits.count <= 19 && digits.mantissa <= UInt64(typemax(Int64)) + digits.is_negative || return nothing
    return (digits.is_negative ? -digits.mantissa : digits.mantissa) % Int64
end

"A number outside of what JSON's readers can hold is not JSON; a whole number can be of any length."
function check_range(reader::Reader, digits::Digits)
    digits.is_whole && return
    # A number below 10^300 is in range, however it is rounded.
    digits.count + digits.exponent < 300 || isfinite(float_of(reader, digits)) || fail(reader, "number out of range")
end

function plain_number(reader::Reader, digits::Digits)
    if digits.is_whole
        short = integer_of(digits)
        return short === nothing ? parse(BigInt, written(reader, digits)) : short
    end
    check_range(reader, digits)
    return float_of(reader, digits)
end

include("json_writer.jl")

end
