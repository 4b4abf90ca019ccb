# The categories that a model holds: the values of a column that it truly knows. One that ignores others would answer for any
# text, so a misspelt category would get a prediction without a word.

const MOST_LISTED = 10_000  # of more categories, the signature would be larger than many a model

"""
By column, the values that a model knows: those that `categories` in predict.jl returns, and those that objects in the model
hold: StatsModels' terms (GLM, MixedModels) and MLJ's encoders. Packages are known by what their objects are called.
"""
function known_categories(model, stated)
    found = Dict{String,Vector{Any}}()
    foreach(value -> note_categories!(found, value), objects_in(model))
    stated isa Union{AbstractDict,NamedTuple} || return found
    for (name, values) in pairs(stated)
        values isa AbstractVector || values isa Tuple && !isempty(values) || continue
        found[string(name)] = [json_value(value) for value in values]
    end
    return found
end

function note_categories!(found, @nospecialize(value))
    fields = fieldnames(typeof(value))
    if :sym in fields && :contrasts in fields && hasfield(typeof(value.contrasts), :levels)  # StatsModels.CategoricalTerm
        add_categories!(found, value.sym, value.contrasts.levels)
    elseif :fitted_levels_given_feature in fields  # MLJModels.OneHotEncoderResult
        for (name, levels) in value.fitted_levels_given_feature
            add_categories!(found, name, levels)
        end
    end
end

function add_categories!(found, name, levels)
    known = get!(found, string(name), Any[])
    append!(known, setdiff(Any[json_value(level) for level in levels], known, [missing]))
end

"The columns, with the categories that the model knows where a signature can list them."
with_known_categories(columns, known) =
    [haskey(known, column.tensor.name) ? with_known(column, known[column.tensor.name]) : column for column in columns]

function with_known(column::ExampleColumn, known)
    tensor = column.tensor
    kind = tensor.datatype == "BYTES" ? String : occursin("INT", tensor.datatype) ? Integer : Union{}
    is_list = !isempty(known) && allunique(known) && all(value -> value isa kind, known)
    is_list && length(tensor.shape) == 1 || return column
    length(known) > MOST_LISTED && return with_remark(column, "the model knows $(length(known)) values, too many to refuse others")
    other = setdiff(skipmissing(column.values), known)
    isempty(other) || return with_remark(
        column,
        "the model does not know $(repr(first(other))), which is in the example, so any value is accepted",
    )
    listed = Tensor(tensor.name, tensor.datatype, tensor.shape, Any[known...])
    return ExampleColumn(listed, column.given, column.values, "the model's; others are refused")
end

with_remark(column::ExampleColumn, remark) = ExampleColumn(column.tensor, column.given, column.values, remark)
