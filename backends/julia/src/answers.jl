# From what `predict` returned to the contract's one form: one value for each row, each output under its own name.

"`predict` returned what has no such form. The model is to blame, not the caller."
struct WrongAnswer <: Exception
    message::String
end
Base.showerror(io::IO, error::WrongAnswer) = print(io, error.message)

"By output, one JSON value for each row. `names` are empty where there is one output."
struct Answers
    names::Vector{String}
    columns::Vector{AbstractVector}
end

# What package extensions know: tables of any package (Tables.jl), and values that wrap others, such as categories (DataAPI.jl).
const COLUMNS_OF_TABLE = Ref{Any}(_ -> nothing)
const UNWRAP = Ref{Any}(identity)

"The answers for `count` rows, matched with the outputs that the signature declares. WrongAnswer says what does not match."
function answers_of(@nospecialize(returned), count::Int, signature::Signature)
    declared = [output.name for output in signature.outputs]
    parts = parts_by_name(returned)
    parts === nothing && return answers_in_order(values_of(returned, count), declared)
    length(parts) == 1 && length(declared) <= 1 && return Answers(String[], [values_of(last(only(parts)), count)])
    names = map(first, parts)
    isempty(declared) ||
        sort(names) == sort(declared) ||
        throw(WrongAnswer("predict returned $(join(names, ", ")), but the signature's outputs are $(join(declared, ", "))"))
    found = Dict(parts)
    names = isempty(declared) ? names : declared
    return Answers(names, AbstractVector[values_of(found[name], count) for name in names])
end

"Several outputs may come as a matrix with a column for each."
function answers_in_order(column, declared)
    width = length(declared)
    width <= 1 && return Answers(String[], [column])
    all(row -> row isa AbstractVector && length(row) == width, column) || throw(
        WrongAnswer(
            "predict returned something else than a table or a matrix with the $width outputs of the signature, " *
            join(declared, ", "),
        ),
    )
    return Answers(declared, AbstractVector[Any[row[place] for row in column] for place in 1:width])
end

"What has its columns by name, as pairs; nothing for anything else."
parts_by_name(returned::NamedTuple) = Pair{String,Any}[string(name) => part for (name, part) in pairs(returned)]
parts_by_name(returned::AbstractDict) = Pair{String,Any}[string(name) => part for (name, part) in returned]
function parts_by_name(@nospecialize(returned))
    if returned isa AbstractVector && !isempty(returned) && all(row -> row isa Union{NamedTuple,AbstractDict}, returned)
        names = keys(first(returned))
        all(row -> issetequal(keys(row), names), returned) || throw(WrongAnswer("predict returned rows of differing names"))
        return Pair{String,Any}[string(name) => Any[row[name] for row in returned] for name in names]
    end
    columns = Base.invokelatest(COLUMNS_OF_TABLE[], returned)
    return columns === nothing ? nothing : parts_by_name(columns)
end

"One JSON value for each of `count` rows."
function values_of(@nospecialize(part), count::Int)
    part isa Base.Generator && (part = collect(part))
    part isa AbstractArray && ndims(part) >= 1 || throw(
        WrongAnswer("predict returned a $(typeof(part)) instead of a vector, a matrix or a table with one row for each row given"),
    )
    size(part, 1) == count || throw(WrongAnswer("predict returned $(size(part, 1)) predictions for $count rows"))
    part isa AbstractVector && return json_values(part)
    part isa Union{Matrix{Float64},Matrix{Float32}} && return eachrow(part)
    return Any[json_value(selectdim(part, 1, row)) for row in axes(part, 1)]
end

json_values(column::TypedVector) = column
json_values(column::AbstractVector) = Any[json_value(value) for value in column]

"A value as JSON has it: dates as ISO 8601, durations in seconds, a category as its label. WrongAnswer where it has no such form."
function json_value(@nospecialize(value))
    value isa Union{Missing,Nothing} && return missing
    value isa Union{Float64,Float32,Float16,Integer} && return value
    value isa Real && return Float64(value)
    value isa AbstractString && return String(value)
    value isa Union{Symbol,AbstractChar,Enum,Dates.Date} && return string(value)
    value isa Union{Dates.DateTime,Dates.Time} && return without_zeros(string(value))
    value isa Dates.FixedPeriod && return Dates.tons(value) / 1e9
    value isa Dates.CompoundPeriod &&
        all(part -> part isa Dates.FixedPeriod, value.periods) &&
        return sum(part -> Dates.tons(part) / 1e9, value.periods, init = 0.0)
    value isa AbstractVector && return json_values(value)
    value isa AbstractArray && ndims(value) > 1 && return Any[json_value(selectdim(value, 1, row)) for row in axes(value, 1)]
    value isa Tuple && return Any[json_value(part) for part in value]
    value isa NamedTuple && return Dict{String,Any}(string(name) => json_value(part) for (name, part) in pairs(value))
    value isa AbstractDict && return Dict{String,Any}(string(name) => json_value(part) for (name, part) in value)
    # TimeZones.jl has no interface of a smaller package that could be asked.
    nameof(typeof(value)) == :ZonedDateTime &&
        hasproperty(value, :utc_datetime) &&
        return without_zeros(string(value.utc_datetime)) * "Z"
    wrapped = Base.invokelatest(UNWRAP[], value)
    wrapped === value || return json_value(wrapped)
    throw(WrongAnswer("a prediction is a $(typeof(value)), which has no form in JSON"))
end

"A time, whose fraction of the second ends with its last digit that is not zero."
without_zeros(text) = occursin('.', text) ? String(rstrip(rstrip(text, '0'), '.')) : text

"The predictions of `/predict`: the values of one output, or an object by output name for each row."
predictions_of(answers::Answers) = isempty(answers.names) ? only(answers.columns) : Records(answers.names, answers.columns)

const ONLY_OUTPUT = "prediction"

"The names under which infer answers."
output_names(answers::Answers, signature::Signature) = isempty(answers.names) ? output_names(signature)[1:1] : answers.names
output_names(signature::Signature) = isempty(signature.outputs) ? [ONLY_OUTPUT] : [output.name for output in signature.outputs]

"""
Open Inference Protocol tensors, one for each output, or for those `wanted`. What no tensor can hold is text that is JSON.
Probabilities are not of the datatype that the signature declares for labels: with `is_declared` false it does not count.
"""
function tensor_outputs(answers::Answers, signature::Signature; wanted = nothing, is_declared = true)
    names = output_names(answers, signature)
    return map(something(wanted, names)) do name
        place = findfirst(isequal(name), names)
        declared = findfirst(output -> output.name == name, signature.outputs)
        datatype = declared === nothing || !is_declared ? nothing : signature.outputs[declared].datatype
        tensor_output(name, answers.columns[place], datatype)
    end
end

function tensor_output(name, column, declared)
    shape, data = [length(column)], column
    while !isempty(data) && all(item -> item isa AbstractVector && length(item) == length(first(data)), data)
        push!(shape, length(first(data)))
        data = flat(data)
    end
    if any(item -> item isa Union{AbstractVector,AbstractDict}, data)
        shape, data = [length(column)], [String(encode(item)) for item in column]
    end
    datatype = declared !== nothing && all_fit(data, declared) ? declared : own_datatype(data)
    return object("name" => name, "shape" => shape, "datatype" => datatype, "data" => as_datatype(data, datatype))
end

"The values of rows, one row after the other."
flat(rows) = reduce(vcat, rows)
flat(rows::Base.Slices{<:Matrix}) = vec(permutedims(parent(rows)))

"Whether all values but nulls are of a datatype."
all_fit(data, datatype) = all(value -> is_null(value) || isempty(fault(value, datatype)), data)
all_fit(data::TypedVector, datatype) = all_fit(data, column_for(Tensor("", datatype, [-1])))
all_fit(data::TypedVector, column::Column) = all(value -> is_null(value) || fits(column, widened(value)), data)

widened(value) = value isa Float32 ? Float64(value) : value
is_null(value) = value === missing || value isa AbstractFloat && !isfinite(value)

"The datatype of values as they are."
function own_datatype(data)
    given = Iterators.filter(!ismissing, data)
    isempty(given) && return "FP64"
    all(value -> value isa Bool, given) && return "BOOL"
    all(is_integer, given) && all(value -> typemin(Int64) <= value <= typemax(Int64), given) && return "INT64"
    all(is_integer, given) && all(value -> 0 <= value <= typemax(UInt64), given) && return "UINT64"
    return all(value -> value isa Real && !(value isa Bool), given) ? "FP64" : "BYTES"
end

function as_datatype(data, datatype)
    data isa Union{Vector{Int64},Vector{Bool},Vector{String}} && return data
    haskey(INTEGERS, datatype) &&
        return Any[is_null(value) ? missing : value isa AbstractFloat ? Int64(value) : value for value in data]
    datatype == "BYTES" || return data
    return Any[ismissing(value) || value isa AbstractString ? value : String(encode(value)) for value in data]
end
