# Rows, column by column: each column is a vector of one type, which is how Julia's tables are. A request's values go straight
# from its text into them.

"`columns` are in the order of `inputs`. Without inputs, `given` has the rows as they came."
struct Rows
    inputs::Vector{Tensor}
    columns::Vector{AbstractVector}  # Vector{T} or Vector{Union{Missing,T}}
    given::Vector{Any}
    count::Int
end
Rows(inputs, columns, count::Int) = Rows(inputs, columns, Any[], count)
Rows(given::Vector) = Rows(Tensor[], AbstractVector[], given, length(given))

Base.length(rows::Rows) = rows.count
Base.isempty(rows::Rows) = rows.count == 0

"Some of the rows, by their numbers."
Base.getindex(rows::Rows, numbers) =
    isempty(rows.inputs) ? Rows(rows.given[numbers]) :
    Rows(rows.inputs, AbstractVector[column[numbers] for column in rows.columns], length(numbers))

"""
What `predict` gets: a named tuple of vectors, which is a Tables.jl column table. Its types are only two: without any missing
value, and where there is one all columns may have them; each further type would have to be compiled.
"""
function table(rows::Rows)
    isempty(rows.inputs) && return rows.given
    adapt = any(has_missing, rows.columns) ? with_missing : without_missing
    return NamedTuple{Tuple(Symbol(input.name) for input in rows.inputs)}(Tuple(adapt(column) for column in rows.columns))
end

has_missing(column::Vector{T}) where {T} = Missing <: T && any(ismissing, column)
with_missing(column::Vector{T}) where {T} = convert(Vector{Union{Missing,T}}, column)
without_missing(column::Vector{T}) where {T} = convert(Vector{nonmissingtype(T)}, column)
with_missing(column::Vector{Any}) = column
without_missing(column::Vector{Any}) = column

"""
A column while it is read. `low` and `high` bound its numbers; with `is_whole_only` they have no fraction although the model takes
any (the caller's tensor says so). With `is_closed` nothing but null fits. Texts that come again are the same object, for memory's sake.
"""
struct Column{T}
    input::Tensor
    low::T
    high::T
    is_whole_only::Bool
    is_closed::Bool
    values::Vector{T}
    missing_rows::Vector{Int}
    recent::Vector{T}  # texts, each at a place that its hash gives
end

"A column of arrays; `leaf` reads what stands in them."
struct ArrayColumn
    input::Tensor
    leaf::Column
    values::Vector{Any}
end

const RECENT_TEXTS = 256

"An empty column for an input, whose values must also fit `datatype`."
function column_for(input::Tensor, datatype = input.datatype)
    is_closed = class_of(input.datatype) != class_of(datatype)
    recent = input.datatype == "BYTES" && !is_closed ? fill("", RECENT_TEXTS) : String[]
    input.datatype == "BYTES" && return Column{String}(input, "", "", false, is_closed, String[], Int[], recent)
    input.datatype == "BOOL" && return Column{Bool}(input, false, true, false, is_closed, Bool[], Int[], Bool[])
    type = haskey(FLOATS, input.datatype) ? Float64 : input.datatype == "UINT64" ? UInt64 : Int64
    (low, high), (other_low, other_high) = bounds_of(input.datatype), bounds_of(is_closed ? input.datatype : datatype)
    is_whole_only = type === Float64 && haskey(INTEGERS, datatype)
    return Column{type}(
        input,
        type(max(low, other_low)),
        type(min(high, other_high)),
        is_whole_only,
        is_closed,
        type[],
        Int[],
        type[],
    )
end

"Numbers of any datatype may be given for those of another, if they fit."
class_of(datatype) = datatype in ("BOOL", "BYTES") ? datatype : "numbers"

bounds_of(datatype) = haskey(INTEGERS, datatype) ? INTEGERS[datatype] : (-FLOATS[datatype], FLOATS[datatype])

reading_column(input::Tensor) = length(input.shape) > 1 ? ArrayColumn(input, column_for(input), Any[]) : column_for(input)

Base.length(column::Union{Column,ArrayColumn}) = length(column.values)

"Forget the rows behind the first `count`."
function cut!(column::Column, count)
    resize!(column.values, min(count, length(column.values)))
    while !isempty(column.missing_rows) && last(column.missing_rows) > count
        pop!(column.missing_rows)
    end
end
cut!(column::ArrayColumn, count) = resize!(column.values, min(count, length(column.values)))

"Put a value into a column that was checked: of the column's type, or missing."
add!(column::Column{T}, value) where {T} = push!(column.values, value)
add!(column::ArrayColumn, value) = push!(column.values, value)
function add!(column::Column{T}, ::Missing) where {T}
    push!(column.values, T === Any ? nothing : T === String ? "" : zero(T))
    push!(column.missing_rows, length(column.values))
end

"The values as a vector, in which they may be missing where one is."
finished(column::ArrayColumn) = column.values
function finished(column::Column{T}) where {T}
    isempty(column.missing_rows) && return column.values
    values = convert(Vector{Union{Missing,T}}, column.values)
    values[column.missing_rows] .= missing
    return values
end

"Whether a value fits; then it is in the column."
accept!(column::Column, value) = !column.is_closed && fits(column, value) && take_in!(column, value)

"Whether a value fits the column's datatype."
fits(column::Column, value) = false

function fits(column::Column{Float64}, value::Union{Float64,Int64,UInt64})
    column.low <= value <= column.high || return false
    return value isa Float64 ? isfinite(value) && (!column.is_whole_only || is_whole(value)) : true
end

fits(column::Column{T}, value::Union{Int64,UInt64}) where {T<:Union{Int64,UInt64}} =
    column.low <= value <= column.high && is_category(column.input, value)
fits(column::Column{T}, value::Float64) where {T<:Union{Int64,UInt64}} =
    is_whole(value) && (T === Int64 || value >= 0) && fits(column, T(value))
fits(column::Column{Bool}, value::Bool) = true
fits(column::Column{String}, text::Union{String,SubString{String}}) =
    column.input.texts === nothing || haskey(column.input.texts, text)

function take_in!(column::Column{T}, value) where {T}
    push!(column.values, T(value))
    return true
end

function take_in!(column::Column{String}, text)
    known = column.input.texts
    if known === nothing
        place = hash(text) % RECENT_TEXTS + 1
        column.recent[place] == text || (column.recent[place] = String(text))
        push!(column.values, column.recent[place])
    else
        push!(column.values, known[text])
    end
    return true
end

is_category(input::Tensor, number) = input.numbers === nothing || number in input.numbers

"""
Read the value that comes next into a column; false where it does not fit, and then the reader stands anywhere behind where it was.
"""
function read_cell!(reader::Reader, column::Column)
    byte = next_byte(reader)
    byte == UInt8('"') && return with_text(text -> accept!(column, text), reader)
    byte == UInt8('-') || is_digit(byte) || return read_word!(reader, column, byte)
    return accept_number!(reader, column, read_number(reader))
end

function read_word!(reader::Reader, column::Column, byte)
    byte == UInt8('t') && return accept!(column, read_word(reader, "true", true))
    byte == UInt8('f') && return accept!(column, read_word(reader, "false", false))
    byte == UInt8('n') || return false
    read_word(reader, "null", nothing)
    add!(column, missing)
    return true
end

accept_number!(reader::Reader, column::Column, digits) = false

function accept_number!(reader::Reader, column::Column{T}, digits) where {T<:Union{Float64,Int64,UInt64}}
    if digits.is_whole
        short = integer_of(digits)
        short === nothing || return accept!(column, short)
        T === Float64 && !column.is_whole_only && return accept!(column, float_of(reader, digits))
        long = tryparse(UInt64, written(reader, digits))
        return long !== nothing && accept!(column, long)
    end
    number = float_of(reader, digits)
    isfinite(number) || fail(reader, "number out of range")
    return accept!(column, number)
end

function read_cell!(reader::Reader, column::ArrayColumn)
    value = read_inner(reader, column, 2)
    value === nothing || push!(column.values, value)
    return value !== nothing
end

"The value at that dimension of the input's shape; missing for null, nothing where it does not fit."
function read_inner(reader::Reader, column::ArrayColumn, dimension)
    byte = next_byte(reader)
    byte == UInt8('n') && return (read_word(reader, "null", nothing); missing)
    byte == UInt8('[') || return nothing
    shape = column.input.shape
    value = dimension == length(shape) ? read_leaves(reader, column.leaf) : read_arrays(reader, column, dimension + 1)
    return value === nothing || shape[dimension] in (-1, length(value)) ? value : nothing
end

read_leaves(reader::Reader, @nospecialize(leaf::Column)) = read_leaves_of(reader, leaf)
function read_leaves_of(reader::Reader, leaf::Column)
    cut!(leaf, 0)
    is_more = go_in(reader, ']')
    while is_more
        read_cell!(reader, leaf) || return nothing
        is_more = go_on(reader, ']')
    end
    values = finished(leaf)
    return values === leaf.values ? copy(values) : values
end

function read_arrays(reader::Reader, column::ArrayColumn, dimension)
    parts = Any[]
    is_more = go_in(reader, ']')
    while is_more
        part = read_inner(reader, column, dimension)
        part === nothing && return nothing
        push!(parts, part)
        is_more = go_on(reader, ']')
    end
    return map(identity, parts)
end

# One function that knows all types: with so many of them Julia would look for the method again at each value.
function read_any!(reader::Reader, @nospecialize(column))
    column isa Column{Float64} && return read_cell!(reader, column)
    column isa Column{Int64} && return read_cell!(reader, column)
    column isa Column{String} && return read_cell!(reader, column)
    column isa Column{Bool} && return read_cell!(reader, column)
    column isa Column{UInt64} && return read_cell!(reader, column)
    return column isa ArrayColumn && read_cell!(reader, column)
end
