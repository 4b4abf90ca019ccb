# baseline.json: what the training data looked like, column by column, in figures that can be merged. The Python backend writes
# the same: numbers in the bins of a DDSketch (https://arxiv.org/abs/1908.10693), texts by value.

const GAMMA = 1.01 / 0.99  # quantiles are off by 1 % of their value at most
const LEAST_COUNT = 10  # a value that fewer rows have may point to a person; it counts as "other"
const MOST_VALUES = 50
const MOST_PREDICTED = 10_000  # rows of the training data
const MOST_BINS = 256
const SMALLEST_NUMBER = floatmin(Float64) * GAMMA  # smaller ones count as zero

"The statistics of the training data, and of the predictions for some of its rows, as baseline.json has them. Throws CannotSave."
function training_baseline(training, names, columns, signature::Signature, predict)
    parts = training_parts(training, names, columns)
    total = length(last(first(parts)))
    most_bins = min(MOST_BINS, max(32, 200_000 ÷ length(columns)))
    inputs = map(zip(columns, parts)) do (column, part)
        found = example_column(part)
        by_value = column.tensor.categories !== nothing || counts_by_value(column.tensor.datatype)
        holds_numbers(found.tensor.datatype) == holds_numbers(column.tensor.datatype) || throw(
            CannotSave(
                "$(first(part)) is $(column.tensor.datatype) in the example and $(found.tensor.datatype) in training: " *
                "pass example = first(training, 50)",
            ),
        )
        first(part) => statistics(found.values, column.tensor.datatype, by_value, most_bins)
    end
    chosen = 1:cld(total, MOST_PREDICTED):total
    answers = predict([last(part)[chosen] for part in parts], length(chosen))
    outputs = map(zip(signature.outputs, answers.columns)) do (output, values)
        output.name => statistics(values, output.datatype, counts_by_value(output.datatype), MOST_BINS)
    end
    return object("schema" => 1, "rows" => total, "least_count" => LEAST_COUNT, "inputs" => inputs, "outputs" => outputs)
end

counts_by_value(datatype) = datatype in ("BYTES", "BOOL")
holds_numbers(datatype) = !counts_by_value(datatype)

"The columns of the training data that the example has, in its order."
function training_parts(training, names, columns)
    given = Dict(table_parts(training, names, "training"))
    wanted = [column.tensor.name for column in columns]
    lacking = filter(name -> !haskey(given, name), wanted)
    isempty(lacking) || throw(CannotSave("training has no column $(join(lacking, ", ")): pass example = first(training, 50)"))
    return [name => given[name] for name in wanted]
end

"Of one column: how many values, how many missing, and how they are distributed. Of arrays each entry counts."
function statistics(values, datatype, by_value, most_bins)
    present = collect(Any, skipmissing(values))
    facts = object("datatype" => datatype, "count" => length(present), "missing" => length(values) - length(present))
    flat = flattened(present)
    by_value && return append!(facts, value_counts(map(string, flat)))
    return push!(facts, "quantiles" => sketch(flat, most_bins))
end

function flattened(values)
    while any(value -> value isa AbstractVector, values)
        values = Any[item for value in values for item in (value isa AbstractVector ? value : (value,))]
    end
    return collect(Any, skipmissing(values))
end

function value_counts(texts)
    counts, order = Dict{String,Int}(), String[]
    for text in texts
        haskey(counts, text) || push!(order, text)
        counts[text] = get(counts, text, 0) + 1
    end
    sort!(order, by = text -> -counts[text], alg = Base.Sort.DEFAULT_STABLE)
    frequent = [text => counts[text] for text in first_items(order, MOST_VALUES) if counts[text] >= LEAST_COUNT]
    return object("frequent" => object(frequent...), "other" => length(texts) - sum(last, frequent, init = 0))
end

"A sketch of numbers with no more than `most_bins` bins, at least one for each sign: as `quantiles` of a baseline.json."
function sketch(values, most_bins)
    zeros, bins = 0, (Dict{Int,Int}(), Dict{Int,Int}())  # of negative and of positive numbers
    for value in values
        number = Float64(value)
        isfinite(number) || continue
        if abs(number) <= SMALLEST_NUMBER
            zeros += 1
        else
            key, signed = ceil(Int, log(abs(number)) / log(GAMMA)), bins[number > 0 ? 2 : 1]
            signed[key] = get(signed, key, 0) + 1
        end
    end
    gamma = GAMMA
    while sum(length, bins) > max(most_bins, 2)
        bins = map(joined, bins)
        gamma = gamma^2
    end
    negative, positive = map(of -> object((string(key) => of[key] for key in sort!(collect(keys(of))))...), bins)
    return object("gamma" => gamma, "zero" => zeros, "negative" => negative, "positive" => positive)
end

"Neighbours together, as if gamma had been its square from the start."
function joined(bins)
    found = Dict{Int,Int}()
    for (key, count) in bins
        found[cld(key, 2)] = get(found, cld(key, 2), 0) + count
    end
    return found
end
