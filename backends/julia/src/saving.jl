# From a trained model to a folder that `publish` and `chips publish` take.

const TOLERANCE = 1e-6  # of the samples: absolute, or relative to the larger number
const MODEL_FILES = Dict("jls" => "model.jls", "jld2" => "model.jld2")
const SAVED_FILES =
    [sort!(collect(values(MODEL_FILES))); "signature.json"; "samples.json"; "runtime.json"; "baseline.json"; "Project.toml"]
const OBJECTS_LOOKED_AT = 1_000_000

# How a model is written, by format: (path, model). JLD2 has its entry in jld2.jl.
const WRITERS = Dict{String,Any}("jls" => serialize)

"What `save_model` wrote, and what it understood of the model's inputs and outputs."
struct Saved
    folder::String
    format::String
    signature::Signature
    samples::Int  # rows with answers in samples.json
    packages::Vector{Pair{String,String}}  # those that the model's types come from, and their versions
end

"The command that publishes it; put the model's name and version in."
command(saved::Saved) = "chips publish $(Base.shell_escape_posixly(saved.folder)) --model NAME --version 1"

"""
    save_model(model, folder; example, training, names, format, samples, overwrite, predictor, out)

Write `model` into `folder`, with its signature and samples, and check that a backend predicts the same. `predictor` says how it
predicts.

`example`: rows as `predict` takes them, 10 to 1000 of the training data: a Tables.jl table, a named tuple of vectors, or a matrix, whose
columns then have `names`. Names and datatypes come from it, categories from it and from the model. `training`: all of the training
data, in the same form; baseline.json then describes its columns and the predictions for them, without any row. `format`: jld2 or jls; by default jld2 where that holds the
model. `samples`: how many rows of the example to publish with their answers; they cover missing values and categories first.
`overwrite`: replace the files of an earlier call. `out`: where the summary goes.

Throws CannotSave; nothing of an earlier call is lost then.

    save_model(model, "trained", example = first(table, 50))
"""
function save_model(
    model,
    folder;
    example,
    predictor::Predictor,
    training = nothing,
    names = nothing,
    format = nothing,
    samples = 5,
    overwrite = false,
    out = stdout,
)
    samples >= 1 || throw(CannotSave("samples must be at least 1: a version without samples cannot be checked"))
    columns = example_columns(example, names)
    columns = with_known_categories(columns, known_categories(model, Base.invokelatest(predictor.categories, model)))
    format === nothing ||
        haskey(MODEL_FILES, format) ||
        throw(CannotSave("the format \"$format\" is not known; choose $(join(sort!(collect(keys(MODEL_FILES))), ", "))"))
    packages = packages_of(model)
    there = filter(name -> ispath(joinpath(folder, name)), SAVED_FILES)
    isempty(there) ||
        overwrite ||
        throw(CannotSave("$folder already has $(join(there, ", ")); pass overwrite = true to replace, or choose another folder"))
    chosen = covering_rows(columns, samples)
    tables = Tuple(Symbol(column.tensor.name) for column in columns)
    ask(parts, count) = own_answers(predictor, model, NamedTuple{tables}(Tuple(map(identity, part) for part in parts)), count)
    answers = ask([column.given[chosen] for column in columns], length(chosen))
    signature = Signature([column.tensor for column in columns], output_tensors(answers))
    content = sample_content(columns, chosen, answers)
    baseline = training === nothing ? nothing : training_baseline(training, names, columns, signature, ask)
    card = joinpath(folder, CARD)
    has_card = isfile(card)  # of a person, who knows more
    format = mktempdir() do draft
        format = write_draft(model, draft, format)
        check_draft(draft, format, predictor, signature, content)
        describe_draft(draft, signature, content, packages, baseline)
        put_in_place(draft, folder, there)
        format
    end
    has_card || write(card, draft_card(model, format, signature, packages, baseline === nothing ? nothing : Dict(baseline)["rows"]))
    saved = Saved(folder, format, signature, length(chosen), [name => version for (name, version, _) in packages])
    summarize(saved, columns, predictor, model, out)
    summarize_files(folder, has_card, out)
    return saved
end

"The new files for those that are `there`. What does not fit on the disk is noticed before anything is removed."
function put_in_place(draft, folder, there)
    mkpath(folder)
    mktempdir(folder; prefix = ".draft-") do staged
        foreach(name -> cp(joinpath(draft, name), joinpath(staged, name)), readdir(draft))
        foreach(name -> rm(joinpath(folder, name)), there)
        foreach(name -> mv(joinpath(staged, name), joinpath(folder, name)), readdir(staged))
    end
end

"Write what describes the model, next to it."
function describe_draft(draft, signature, content, packages, baseline)
    runtime = object("julia" => string(VERSION), (name => version for (name, version, _) in packages)...)
    described = ("signature" => plain_signature(signature), "samples" => content, "runtime" => runtime)
    foreach(((name, value),) -> write(joinpath(draft, "$name.json"), encode(value, indent = 2), "\n"), described)
    baseline === nothing || write(joinpath(draft, "baseline.json"), encode(baseline), "\n")
    isempty(packages) || write(joinpath(draft, "Project.toml"), project_text(packages))
end

"What the model itself predicts for these rows, given as `predict` gets them."
function own_answers(predictor::Predictor, model, rows, count)
    try
        return answers_of(Base.invokelatest(predictor.predict, model, rows, Dict{String,Any}()), count, Signature([], []))
    catch error
        error isa WrongAnswer && throw(CannotSave("$(error.message); change predict.jl"))
        throw(CannotSave("the model does not predict the rows that were given: $(named(error)). Pass rows as predict takes them"))
    end
end

function output_tensors(answers::Answers)
    names = isempty(answers.names) ? [ONLY_OUTPUT] : answers.names
    return [output_tensor_of(name, column) for (name, column) in zip(names, answers.columns)]
end

function output_tensor_of(name, column)
    shape, flat = [-1], collect(Any, column)
    while !isempty(flat) && all(value -> value isa AbstractVector, flat)
        sizes = unique(length(value) for value in flat)
        push!(shape, length(sizes) == 1 ? only(sizes) : -1)
        flat = Any[item for value in flat for item in value]
    end
    return Tensor(name, own_datatype(flat), shape)
end

"Each row of the example alone, with its answer."
function sample_content(columns, chosen, answers)
    predictions = as_read(predictions_of(answers))
    return map(enumerate(chosen)) do (at, row)
        instance = Pair{String,Any}[column.tensor.name => column.values[row] for column in columns]
        (request = (instances = [instance],), response = (predictions = [predictions[at]],), tolerance = TOLERANCE)
    end
end

as_read(value) = parse_json(encode(value))

"Write the model in the format, or in the safest that holds it: the format."
function write_draft(model, draft, format)
    if format === nothing
        path = joinpath(draft, MODEL_FILES["jld2"])
        try
            Base.invokelatest(WRITERS["jld2"], path, model)
            # JLD2 rebuilds types that it does not know, and leaves out functions: then it is not the same model.
            typeof(Base.invokelatest(READERS["jld2"], path)) === typeof(model) && return "jld2"
        catch error
            error isa InterruptException && rethrow()
        end
        rm(path, force = true)
        format = "jls"
    end
    try
        Base.invokelatest(WRITERS[format], joinpath(draft, MODEL_FILES[format]), model)
    catch error
        throw(CannotSave("the model cannot be written as $format: $(named(error))"))
    end
    return format
end

const READERS = Dict{String,Any}()

"Load it as a backend does; each sample alone, and all together, must come out as the model itself predicts."
function check_draft(draft, format, predictor::Predictor, signature, content)
    path = joinpath(draft, MODEL_FILES[format])
    file = ArtifactFile(basename(path), filesize(path), digest_of(path))
    manifest = Manifest("saved", "1", format, [file], Dict{String,String}(), signature, Sample[], "independent")
    instances = [only(sample.request.instances) for sample in content]
    alone, together = try
        model = Base.invokelatest(predictor.load, draft, manifest)
        score(rows) = as_read(predictions_of(score_rows(predictor, model, rows, signature)))
        [only(score([instance])) for instance in instances], score(instances)
    catch error
        throw(CannotSave("a backend could not serve it: $(error isa Problem ? error.detail : named(error))"))
    end
    for (number, sample) in enumerate(content),
        (got, how) in ((alone[number], "alone"), (together[number], "together with the others"))

        wanted = as_read(only(sample.response.predictions))
        is_close(got, wanted, TOLERANCE) || throw(
            CannotSave(
                "a backend would predict $(brief(got)) for the sample $number $how, the model here $(brief(wanted)): its input was " *
                "$(brief(instances[number])). Does predict see the columns in another type or order than `example` has?",
            ),
        )
    end
end

function score_rows(predictor::Predictor, model, instances, signature)
    rows = read_instances(String(encode(object("instances" => instances))), signature).rows
    returned = Base.invokelatest(predictor.predict, model, table(rows), Dict{String,Any}())
    return answers_of(returned, length(rows), signature)
end

"The packages that the model's types come from: name, version and UUID. CannotSave for types of a script, which no backend has."
function packages_of(model)
    roots, own = Set{Module}(), Set{String}()
    foreach(value -> note_type!(roots, own, typeof(value)), objects_in(model))
    isempty(own) || throw(
        CannotSave(
            "the model uses $(join(sort!(collect(own)), ", ")) of this script or notebook (Main), which no backend has: define it in a " *
            "package that the training and predict.jl both use, and train again",
        ),
    )
    known = [(Base.PkgId(root), pkgversion(root)) for root in roots if !is_of_julia(root)]
    return sort!([
        (id.name, string(version), string(id.uuid)) for (id, version) in known if id.uuid !== nothing && version !== nothing
    ])
end

"The objects that a model is made of, each once."
function objects_in(model)
    seen, waiting = Base.IdSet{Any}(), Any[model]
    while !isempty(waiting) && length(seen) < OBJECTS_LOOKED_AT
        value = pop!(waiting)
        value in seen && continue
        push!(seen, value)
        value isa Union{Module,DataType,Symbol,AbstractString} || append!(waiting, parts_of_object(value))
    end
    return seen
end

is_of_julia(root) = root in (Base, Core) || startswith(something(pathof(root), Sys.STDLIB), Sys.STDLIB)

function parts_of_object(value)
    value isa Array || return Any[getfield(value, place) for place in 1:nfields(value) if isdefined(value, place)]
    isbitstype(eltype(value)) && return Any[]  # their type is a parameter of the array's
    return Any[value[place] for place in eachindex(value) if isassigned(value, place)]
end

function note_type!(roots, own, @nospecialize(type))
    type isa Union && return foreach(part -> note_type!(roots, own, part), Base.uniontypes(type))
    type isa UnionAll && return note_type!(roots, own, Base.unwrap_unionall(type))
    type isa DataType || return
    root = Base.moduleroot(parentmodule(type))
    root === Main ? push!(own, string(nameof(type))) : push!(roots, root)
    foreach(parameter -> parameter isa Type && note_type!(roots, own, parameter), type.parameters)
end

function project_text(packages)
    lines = ["[deps]"; ["$name = \"$uuid\"" for (name, _, uuid) in packages]; ""; "[compat]"]
    append!(lines, ["$name = \"=$version\"" for (name, version, _) in packages])
    return join([lines; "julia = \"$(VERSION.major).$(VERSION.minor)\""], "\n") * "\n"
end

plain_signature(signature::Signature) =
    (inputs = map(plain_tensor, signature.inputs), outputs = map(plain_tensor, signature.outputs))

function plain_tensor(tensor::Tensor)
    described = tensor_object(tensor)
    return tensor.categories === nothing ? described : push!(described, "categories" => tensor.categories)
end

const COLUMNS_SHOWN = 30

function summarize(saved::Saved, columns, predictor::Predictor, model, out)
    shown = first_items(columns, COLUMNS_SHOWN)
    width = maximum(column -> length(column.tensor.name), shown, init = length("INPUT"))
    println(out, rpad("INPUT", width), "  DATATYPE  VALUES")
    foreach(
        column -> println(out, rpad(column.tensor.name, width), "  ", rpad(column.tensor.datatype, 8), "  ", note(column)),
        shown,
    )
    length(columns) > COLUMNS_SHOWN && println(out, "… and $(length(columns) - COLUMNS_SHOWN) more in signature.json")
    println(out, "output   ", join(("$(output.name) $(output.datatype)" for output in saved.signature.outputs), ", "))
    classes = Base.invokelatest(predictor.classes, model)
    classes === nothing || println(out, "classes  ", brief(labels(classes)))
    file = joinpath(saved.folder, MODEL_FILES[saved.format])
    println(out, "written  $file ($(saved.format)), with $(saved.samples) samples that a backend predicts as the model does here")
    isempty(saved.packages) || println(out, "needs    ", join(("$name $version" for (name, version) in saved.packages), ", "))
    println(out, "next     chips new julia NAME --from $(Base.shell_escape_posixly(saved.folder)), then chips deploy models/NAME")
    println(out, "or       ", command(saved))
    saved.format == "jls" && println(out, "note     jls runs code when it is loaded: publish only what you trained yourself")
    println(out, "note     samples.json holds $(saved.samples) rows of the example as they are; look at them before you publish")
end

function summarize_files(folder, has_card, out)
    isfile(joinpath(folder, "baseline.json")) &&
        println(out, "note     baseline.json has each column in figures; a text that fewer than $LEAST_COUNT rows have is left out")
    println(
        out,
        "note     $CARD ",
        has_card ? "was kept: does it still describe this model?" : "is a draft: write what it asks for",
    )
    foreign = setdiff(readdir(folder), SAVED_FILES, [CARD])
    isempty(foreign) || println(
        out,
        "note     $(join(first_items(foreign, 5), ", ")) in $folder would be published too: better save to a folder of its own",
    )
end
