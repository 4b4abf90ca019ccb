# What a table of examples has: a name, a datatype and the categories of each column, and its values as JSON has them.

"The model cannot be saved so that a backend predicts the same; the text says why and what to do."
struct CannotSave <: Exception
    message::String
end
Base.showerror(io::IO, error::CannotSave) = print(io, error.message)

"A column of the example. `given` are its values as they are, `values` as JSON has them: missing where one is."
struct ExampleColumn
    tensor::Tensor
    given::AbstractVector
    values::Vector{Any}
    remark::String  # of what the model knows of it
end
ExampleColumn(tensor, given, values) = ExampleColumn(tensor, given, values, "")

const LEVELS = Ref{Any}(_ -> nothing)  # the categories of a column, in order: what package extensions know
const MOST_CATEGORIES_SHOWN = 6
const INTEGER_TYPES = (Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64)
const TEXT_TYPES = Union{AbstractString,Symbol,AbstractChar,Enum,Dates.Date,Dates.DateTime,Dates.Time}

"The columns of a table of any kind, or of a matrix with a row for each row; `names` are those of a matrix's columns."
example_columns(example, names) = map(example_column, table_parts(example, names, "example"))

"By name, the columns of a table of any kind or of a matrix. `what` it is, for CannotSave."
function table_parts(example, names, what)
    parts =
        example isa AbstractMatrix ? matrix_parts(example, names) :
        example isa AbstractDict ? sort!(parts_by_name(example), by = first) : parts_by_name(example)
    parts === nothing &&
        throw(CannotSave("$what is a $(typeof(example)); pass a table (a data frame, or a named tuple of vectors) or a matrix"))
    any(part -> last(part) isa AbstractVector && isempty(last(part)), parts) || isempty(parts) || return parts
    throw(CannotSave("$what has no rows or no columns; pass some rows of the training data, such as first(table, 50)"))
end

function matrix_parts(example, names)
    names = something(names, ["x$place" for place in axes(example, 2)])
    length(names) == size(example, 2) || throw(CannotSave("names has $(length(names)) names for $(size(example, 2)) columns"))
    return Pair{String,Any}[string(name) => example[:, place] for (place, name) in enumerate(names)]
end

function example_column((name, given))
    given isa AbstractVector || throw(CannotSave("$name is a $(typeof(given)); each column of a table must be a vector"))
    values = try
        Any[or_missing(json_value(value)) for value in given]
    catch error
        error isa WrongAnswer || rethrow()
        throw(no_datatype(name, given))
    end
    given = map(identity, given)  # of a type as narrow as its values
    all(ismissing, values) && throw(CannotSave("every value of $name is missing in the example; pass rows that have some"))
    return ExampleColumn(tensor_of(name, given, values), given, values)
end

or_missing(value) = value isa AbstractFloat && !isfinite(value) ? missing : value

no_datatype(name, given) = CannotSave(
    "$name holds $(eltype(given)), which no datatype describes; a column is numbers, texts, booleans, dates, categories, or arrays " *
    "of one of these",
)

function tensor_of(name, given, values)
    type = nonmissingtype(eltype(given))
    categories = categories_of(name, given, type)
    categories === nothing || return Tensor(name, first(categories) isa String ? "BYTES" : "INT64", [-1], categories)
    type <: AbstractVector && return array_tensor(name, values)
    return Tensor(name, datatype_of(name, type, given), [-1])
end

function datatype_of(name, type, given)
    type === Bool && return "BOOL"
    type in INTEGER_TYPES && return (type <: Signed ? "INT" : "UINT") * string(8 * sizeof(type))
    type in (Float16, Float32, Float64) && return "FP" * string(8 * sizeof(type))
    type <: AbstractFloat && return "FP64"
    type <: Rational && return "FP64"
    type <: TEXT_TYPES && return "BYTES"
    # Numbers of several types: as they come in JSON.
    type === Real && all(value -> value isa Union{Missing,Float64,Float32,Int64,Int32}, given) && return "FP64"
    throw(no_datatype(name, given))
end

"All values that a column of categories may have; nothing for any other column."
function categories_of(name, given, type)
    type <: Enum && isconcretetype(type) && return Any[string(value) for value in instances(type)]
    present = collect(skipmissing(given))
    Base.invokelatest(UNWRAP[], first(present)) === first(present) && return nothing
    levels = Any[json_value(level) for level in something(Base.invokelatest(LEVELS[], given), unique(present))]
    all(level -> level isa String, levels) ||
        all(level -> level isa Int64, levels) ||
        throw(CannotSave("the categories of $name are neither all texts nor all whole numbers; convert the column before training"))
    return levels
end

function array_tensor(name, values)
    shape, flat = [-1], collect(Any, skipmissing(values))
    while !isempty(flat) && all(value -> value isa AbstractVector, flat)
        sizes = unique(length(value) for value in flat)
        push!(shape, length(sizes) == 1 ? only(sizes) : -1)
        flat = Any[item for value in flat for item in value if !ismissing(item)]
    end
    isempty(flat) && throw(CannotSave("the arrays of $name are all empty in the example; pass rows that have some values"))
    narrow = map(identity, flat)
    return Tensor(name, datatype_of(name, eltype(narrow), narrow), shape)
end

"What a column's values are, in a few words."
function note(column::ExampleColumn)
    parts, tensor = String[], column.tensor
    present = collect(skipmissing(column.values))
    if tensor.categories !== nothing
        shown = join(first_items(tensor.categories, MOST_CATEGORIES_SHOWN), ", ")
        more = length(tensor.categories) - MOST_CATEGORIES_SHOWN
        push!(parts, "$(length(tensor.categories)) categories: $shown" * (more > 0 ? " and $more more" : ""))
    elseif length(tensor.shape) > 1
        push!(parts, "arrays of " * join((size < 0 ? "any" : string(size) for size in tensor.shape[2:end]), " x "))
    elseif !(tensor.datatype in ("BYTES", "BOOL"))
        push!(parts, "$(brief_number(minimum(present))) to $(brief_number(maximum(present)))")
    end
    missing_count = length(column.values) - length(present)
    missing_count > 0 && push!(parts, "$missing_count of $(length(column.values)) missing")
    isempty(column.remark) || push!(parts, column.remark)
    return join(parts, "; ")
end

brief_number(number) = number isa Integer ? string(number) : string(round(Float64(number), sigdigits = 6))

"`count` rows that cover missing values and categories first, in their order."
function covering_rows(columns, count)
    total = length(first(columns).values)
    shown, chosen = Set{Any}(), Int[]
    for row in 1:total
        length(chosen) < count || break
        fresh = setdiff(filter(!isnothing, [facet(column, row) for column in columns]), shown)
        row == 1 || !isempty(fresh) || continue
        union!(shown, fresh)
        push!(chosen, row)
    end
    others = setdiff(1:total, chosen)
    return sort!([chosen; first_items(others, count - length(chosen))])
end

"What a row shows of a column that another may not: that a value can be missing, or one of its categories."
function facet(column::ExampleColumn, row)
    value = column.values[row]
    ismissing(value) && return (column.tensor.name, missing)
    return column.tensor.categories === nothing && column.tensor.datatype != "BOOL" ? nothing : (column.tensor.name, value)
end
