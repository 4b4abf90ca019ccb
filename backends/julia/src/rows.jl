# Rows, column by column: each column is a vector of one type, which is how Julia's tables are.

"`columns` are in the order of `inputs`. Without inputs, `given` has the rows as they came."
struct Rows
    inputs::Vector{Tensor}
    columns::Vector{AbstractVector}  # Vector{Union{Missing,T}}
    given::Vector{Any}
    count::Int
end
Rows(inputs, columns, count::Int) = Rows(inputs, columns, Any[], count)
Rows(inputs, columns, given::Vector) = Rows(inputs, columns, given, length(given))

Base.length(rows::Rows) = rows.count
Base.isempty(rows::Rows) = rows.count == 0

"Some of the rows, by their numbers."
Base.getindex(rows::Rows, numbers) =
    isempty(rows.inputs) ? Rows(rows.inputs, rows.columns, rows.given[numbers]) :
    Rows(rows.inputs, AbstractVector[column[numbers] for column in rows.columns], length(numbers))

"""
What `predict` gets: a named tuple of vectors, which is a Tables.jl column table. Its types are only two: without any missing
value, and where there is one all columns may have them; each further type would have to be compiled.
"""
function table(rows::Rows)
    isempty(rows.inputs) && return rows.given
    has_missing = any(column -> any(ismissing, column), rows.columns)
    columns = has_missing ? rows.columns : AbstractVector[without_missing(column) for column in rows.columns]
    return NamedTuple{Tuple(Symbol(input.name) for input in rows.inputs)}(Tuple(columns))
end

without_missing(column::Vector{Union{Missing,T}}) where {T} = convert(Vector{T}, column)

"No such value was given, or not in a form that can be taken at once: then the slow way says what is wrong."
struct NotGiven end
const NOT_GIVEN = NotGiven()

"The columns, from `value_at(place, row)`, the JSON values; nothing where any of them does not fit its input."
function fill_columns(value_at, inputs, count)
    columns = AbstractVector[]
    for (place, input) in enumerate(inputs)
        column = empty_column(input, count)
        fill_column!(column, value_at, place, input) || return nothing
        push!(columns, column)
    end
    return columns
end

function empty_column(input::Tensor, count)
    length(input.shape) > 1 && return Vector{Union{Missing,Any}}(undef, count)
    haskey(FLOATS, input.datatype) && return Vector{Union{Missing,Float64}}(undef, count)
    input.datatype == "UINT64" && return Vector{Union{Missing,UInt64}}(undef, count)
    haskey(INTEGERS, input.datatype) && return Vector{Union{Missing,Int64}}(undef, count)
    return input.datatype == "BOOL" ? Vector{Union{Missing,Bool}}(undef, count) : Vector{Union{Missing,String}}(undef, count)
end

# For numbers without categories: checked by their bounds, without a detour by text.
function fill_column!(column::Vector{Union{Missing,Float64}}, value_at, place, input)
    most = FLOATS[input.datatype]
    for row in eachindex(column)
        value = value_at(place, row)
        value === nothing && (column[row] = missing; continue)
        number = value isa Float64 ? value : value isa Int64 ? Float64(value) : value isa BigInt ? Float64(value) : NaN
        isfinite(number) && abs(number) <= most || return false
        column[row] = number
    end
    return true
end

function fill_column!(column::Vector, value_at, place, input)
    for row in eachindex(column)
        value = value_at(place, row)
        value === NOT_GIVEN && return false
        problems = String[]
        column[row] = read_value(value, input, 2, () -> "", problems)
        isempty(problems) || return false
    end
    return true
end
