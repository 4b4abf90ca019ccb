# Whose fault it was that a prediction failed: the model's, or that of a row which it cannot take.

"Model code that calls `exit()` gets this instead: it would end everybody's predictions."
struct ExitCalled <: Exception
    code::Any
end
Base.showerror(io::IO, error::ExitCalled) = print(io, "model code called exit($(error.code))")

"From now on `exit` throws. The process itself ends by `leave`."
function forbid_exit()
    is_compiling = ccall(:jl_generating_output, Cint, ()) == 1  # a package must not change Base while it is compiled
    is_compiling || Base.eval(Base, :(exit(code) = throw($ExitCalled(code))))
end

"How a place is named: by its row, from 0, and a field, which may be nothing."
row_place(row, input) = input === nothing ? "instances[$row]" : "instances[$row].$(input.name)"
tensor_place(row, input) = input === nothing ? "row $row" : "$(input.name)[$row]"

"""
The Problem for a caller whose row the model cannot take; nothing where the model is to blame: what it threw is no complaint, it
fails for the good row too, or the same rows can be predicted the second time.
"""
function blame(loaded::Loaded, scoring::Scoring, error, place)
    error isa Refused && return invalid_instances([error.message])
    error isa Union{Problem,WrongAnswer,ExitCalled,InterruptException} && return nothing
    good = loaded.good[]
    good === nothing && return nothing
    fails(rows, parameters = scoring.parameters) =
        try
            predict_rows(loaded, rows, parameters)
            false
        catch again
            again isa Union{WrongAnswer,ExitCalled,InterruptException} && rethrow(error)
            true
        end
    if fails(good)
        is_parameters = !isempty(scoring.parameters) && !fails(good, Dict{String,Any}())
        return is_parameters ? invalid_instances(["parameters: the model cannot take these parameters"]) : nothing
    end
    fails(scoring.rows) || return nothing
    row = first_failing(fails, scoring.rows, 1:length(scoring.rows))
    row === nothing && return nothing
    return invalid_instances(cannot_take(fails, good, scoring.rows[row:row], row - 1, place))
end

"The first row that fails alone, found by halving; nothing where rows fail in company only."
function first_failing(fails, rows::Rows, range)
    length(range) == 1 && return first(range)
    middle = (first(range) + last(range)) ÷ 2
    for half in (first(range):middle, (middle+1):last(range))
        fails(rows[half]) && return first_failing(fails, rows, half)
    end
    return nothing
end

"The fields of the one row that the good row cannot take either."
function cannot_take(fails, good::Rows, rows::Rows, row, place)
    problems = String[]
    for (at, input) in enumerate(rows.inputs)
        columns = copy(good.columns)
        columns[at] = rows.columns[at]
        fails(Rows(rows.inputs, columns, 1)) || continue
        value = only(rows.columns[at])
        push!(problems, "$(place(row, input)): the model cannot take $(shown(value === missing ? nothing : value))")
    end
    return isempty(problems) ? ["$(place(row, nothing)): the model cannot take this row"] : problems
end
