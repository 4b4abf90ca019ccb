# The body of `/predict`: rows, each an object by field name or an array in the order of the signature.

"Rows as far as they were read, and what is wrong with them."
struct GivenRows
    rows::Rows
    problems::Vector{String}
end

"""
`{"instances": […], "parameters": {…}}`: each instance an object by field name, or an array in signature order. `accepts` are the
parameters that the model knows. A Problem says what is wrong.
"""
function read_instances(text::String, signature::Signature, accepts = String[])
    body = read_fields(text, ("instances", "parameters")) do reader, name
        name == "instances" || return read_value(reader)
        return next_byte(reader) == UInt8('[') ? read_rows(reader, signature.inputs) : read_shallow(reader)
    end
    body isa Dict || throw(invalid_instances(["expected an object with \"instances\", got $(kind(body))"]))
    given = get(body, "instances", nothing)
    if !(given isa GivenRows)
        what = haskey(body, "instances") ? "must be an array, got $(kind(given))" : "is missing"
        throw(invalid_instances(["instances $what"]))
    end
    require_known_fields(body, ("instances", "parameters"))
    parameters = read_parameters(body, accepts)
    isempty(given.problems) || throw(invalid_instances(given.problems))
    return Scoring(given.rows, parameters)
end

function read_rows(reader::Reader, inputs)
    isempty(inputs) && return GivenRows(Rows(read_array(reader)), String[])
    columns = Any[reading_column(input) for input in inputs]
    places = Dict(input.name => place for (place, input) in enumerate(inputs))
    problems, count, start = String[], 0, reader.at
    is_more = go_in(reader, ']')
    while is_more
        count += 1
        if length(problems) >= ENOUGH_PROBLEMS
            skip_value(reader)
        else
            read_row!(reader, columns, inputs, places, count, problems)
        end
        count == 8 && expect_rows!(columns, (reader.size - start) * 8 ÷ (reader.at - start))
        is_more = go_on(reader, ']')
    end
    return GivenRows(Rows(inputs, AbstractVector[finished(column) for column in columns], count), problems)
end

"To grow a vector step by step, and copy it each time, takes longer than to ask for its memory once."
expect_rows!(columns, count) = foreach(column -> sizehint!(column.values, count), columns)

function read_row!(reader::Reader, columns, inputs, places, row, problems)
    at, depth = reader.at, reader.depth
    byte = next_byte(reader)
    fits =
        byte == UInt8('[') ? read_row_in_order!(reader, columns) :
        byte == UInt8('{') && read_row_by_name!(reader, columns, inputs, places, row)
    fits && return
    # The slow way: it takes what the fast one does not, such as 1.0 for an integer, and says what is wrong.
    reader.at, reader.depth = at, depth
    foreach(column -> cut!(column, row - 1), columns)
    instance, known = read_value(reader), length(problems)
    explain_row(instance, inputs, "instances[$(row - 1)]", problems)
    for (place, input) in enumerate(inputs)
        value = length(problems) > known ? missing : checked(value_of(instance, input, place), input, 2, () -> "", problems)
        add!(columns[place], value)
    end
end

value_of(instance::Dict, input, _) = instance[input.name]
value_of(instance::Vector, _, place) = instance[place]

function read_row_in_order!(reader::Reader, columns::Vector{Any})
    place, is_more = 0, go_in(reader, ']')
    while is_more
        place += 1
        place <= length(columns) && read_any!(reader, columns[place]) || return false
        is_more = go_on(reader, ']')
    end
    return place == length(columns)
end

function read_row_by_name!(reader::Reader, columns::Vector{Any}, inputs, places, row)
    count, is_more = 0, go_in(reader, '}')
    while is_more
        count += 1
        expected = count  # which the function below can hold without a box
        place = with_name(name -> place_of(name, inputs, places, expected), reader)
        place > 0 && length_of(columns[place]) < row && read_any!(reader, columns[place]) || return false
        is_more = go_on(reader, '}')
    end
    return count == length(columns)
end

"Where the input of that name stands, 0 for none: most callers write them in the order of the signature."
place_of(name, inputs, places, expected) =
    expected <= length(inputs) && inputs[expected].name == name ? expected : get(places, name, 0)

function length_of(@nospecialize(column))
    column isa Column{Float64} && return length(column)
    column isa Column{Int64} && return length(column)
    column isa Column{String} && return length(column)
    return length(column)::Int
end

function explain_row(instance, inputs, place, problems)
    if instance isa Dict
        names = [input.name for input in inputs]
        for name in sort!(collect(keys(instance)))
            name in names || push!(problems, "$place: there is no input $(shown(name))")
        end
        append!(problems, ["$place.$name is missing" for name in names if !haskey(instance, name)])
        for input in inputs
            haskey(instance, input.name) || continue
            checked(instance[input.name], input, 2, () -> "$place.$(input.name)", problems)
        end
    elseif instance isa Vector
        length(instance) == length(inputs) ||
            return push!(problems, "$place: expected $(length(inputs)) values, got $(length(instance))")
        for (column, input) in enumerate(inputs)
            checked(instance[column], input, 2, () -> "$place[$(column - 1)]", problems)
        end
    else
        push!(problems, "$place: expected an object or an array, got $(kind(instance))")
    end
end
