# The model in service: fetched, loaded, warmed up, ready; then scored.

"The model cannot be served; the text says why, `exit_code` how the process ends."
struct StartError <: Exception
    message::String
    exit_code::Int
end
Base.showerror(io::IO, error::StartError) = print(io, error.message)

"How a model is loaded and how it predicts: what predict.jl says. `classes`, `categories` and `parameters` may be left out there."
struct Predictor
    load::Any
    predict::Any
    classes::Any
    categories::Any
    parameters::Vector{String}
end
Predictor(load, predict; classes = _ -> nothing, categories = _ -> nothing, parameters = String[]) =
    Predictor(load, predict, classes, categories, parameters)
Predictor(code::Module) = Predictor(code, Predictor(nothing, nothing))
"What `code` defines, and `other` for the rest."
Predictor(code::Module, other::Predictor) = Predictor(
    own(code, :load, other.load),
    own(code, :predict, other.predict),
    own(code, :classes, other.classes),
    own(code, :categories, other.categories),
    collect(String, own(code, :PARAMETERS, other.parameters)),
)

own(code::Module, name, otherwise) = isdefined(code, name) ? getfield(code, name) : otherwise

"The predictor with a person's own predict.jl, which replaces what it defines. An empty path: none."
function with_own_code(predictor::Predictor, path)
    isempty(path) && return predictor
    code = Module(:OwnCode)
    for (name, ours) in (:Manifest => Manifest, :Refused => Refused, :main_file => main_file)
        Core.eval(code, :(const $name = $ours))
    end
    Core.eval(code, :(include(path) = Base.include($code, path)))
    Base.include(code, abspath(path))
    return Predictor(code, predictor)
end

"What `predict` may throw where the caller is to be told, with 422: the text goes to the caller."
struct Refused <: Exception
    message::String
end

struct Loaded
    artifact::Artifact
    model::Any
    predict::Any
    classes::Any  # the labels of a classifier; nothing for any other model
    accepts::Vector{String}  # the parameters of requests that are known
    workers::Workers
    good::Base.RefValue{Union{Rows,Nothing}}  # the row that made it ready
    outputs::Base.RefValue{Vector{String}}  # their names
end

signature_of(loaded::Loaded) = loaded.artifact.manifest.signature

"Fetch, check, load and warm up. Throws ArtifactError or StartError."
function bring_into_service(config::Config, predictor::Predictor; environ = ENV)
    artifact = obtain(config, environ = environ)
    @info "the artifact $(artifact.address) is complete and checked" artifact_digest = artifact.digest
    model, classes = try
        model = Base.invokelatest(predictor.load, artifact.folder, artifact.manifest)
        model, Base.invokelatest(predictor.classes, model)
    catch error
        @error "the model could not be loaded" exception = (error, catch_backtrace())
        throw(StartError(cannot_load(artifact, error), EX_SOFTWARE))
    end
    accepts = sort!(unique([predictor.parameters; classes === nothing ? String[] : collect(String, OF_CLASSIFIERS)]))
    classes = classes === nothing ? nothing : labels(classes)
    good, outputs = Ref{Union{Rows,Nothing}}(nothing), Ref(String[])
    loaded = Loaded(artifact, model, predictor.predict, classes, accepts, Workers(config.concurrency), good, outputs)
    warm_up!(loaded)
    return loaded
end

"The labels of one output, or by output."
labels(classes::NamedTuple) = object((name => json_value(collect(part)) for (name, part) in pairs(classes))...)
labels(classes) = json_value(collect(classes))

function cannot_load(artifact::Artifact, error)
    made_with = join(("$name $version" for (name, version) in artifact.manifest.runtime), ", ")
    return "$(artifact.address) could not be loaded: $(named(error)). It was made with " *
           "$(isempty(made_with) ? "versions that its manifest does not name" : made_with): are these installed?"
end

named(error) = "$(nameof(typeof(error))): $(first(sprint(showerror, error), 300))"

"The answers for checked rows. Throws what the model throws, WrongAnswer, or a Problem that says which row it cannot take."
function answer(loaded::Loaded, scoring::Scoring, place = row_place)
    isempty(scoring.rows) && return nothing_answered(loaded)
    try
        return predict_rows(loaded, scoring.rows, scoring.parameters)
    catch error
        problem = blame(loaded, scoring, error, place)
        problem === nothing && rethrow()
        @warn "the model cannot take a row of this request" reason = named(error)
        throw(problem)
    end
end

predict_rows(loaded::Loaded, rows::Rows, parameters) =
    answers_of(Base.invokelatest(loaded.predict, loaded.model, table(rows), parameters), length(rows), signature_of(loaded))

function nothing_answered(loaded::Loaded)
    names = length(loaded.outputs[]) > 1 ? loaded.outputs[] : String[]
    return Answers(names, AbstractVector[Any[] for _ in 1:max(length(names), 1)])
end

"Ready means that it has predicted: all samples as they were published, or else a row that it takes. Throws StartError."
function warm_up!(loaded::Loaded)
    samples = loaded.artifact.manifest.samples
    began = time()
    isempty(samples) ? seek_good_row!(loaded) : foreach(sample -> score_sample!(loaded, sample), samples)
    loaded.good[] === nothing && seek_good_row!(loaded)
    check_answers!(loaded)
    took = "in $(round((time() - began) * 1000, digits = 1)) ms"
    isempty(samples) &&
        return @warn "warmed up with a row of zeros, $took; the manifest has no samples, so nobody has checked the model"
    @info "warmed up: the samples came out as published, $took"
end

"The answers of a job in a slot, or StartError."
function rehearsed(action, loaded::Loaded, what)
    outcome = perform(action, loaded.workers)
    outcome isa Outcome && return outcome.value
    @error "$what could not be scored" exception = (outcome.error, outcome.trace)
    throw(StartError("$what could not be scored: $(named(outcome.error))", EX_DATAERR))
end

function score_sample!(loaded::Loaded, sample::Sample)
    scoring = try
        read_instances(String(encode(sample.request)), signature_of(loaded), loaded.accepts)
    catch error
        error isa Problem || rethrow()
        throw(StartError("a sample of the manifest is not what its signature says: $(error.detail)", EX_DATAERR))
    end
    published = get(sample.response, "predictions", nothing)
    answers = rehearsed(() -> predict_rows(loaded, scoring.rows, scoring.parameters), loaded, "a sample of the manifest")
    got = parse_json(encode(predictions_of(answers)))
    is_close(got, published, sample.tolerance) || throw(
        StartError(
            "a sample of the manifest came out differently from what was published (got $(brief(got)), " *
            "published $(brief(published))): the packages here differ from those the model was made with",
            EX_DATAERR,
        ),
    )
    loaded.good[] === nothing && isempty(scoring.parameters) && !isempty(scoring.rows) && (loaded.good[] = scoring.rows[1:1])
end

"A row that the model takes, where no sample shows one."
function seek_good_row!(loaded::Loaded)
    inputs, last_error = signature_of(loaded).inputs, nothing
    for number in (0, 1)
        instance = Any[neutral(input, 2, number) for input in inputs]
        rows = read_instances(String(encode(object("instances" => [instance]))), signature_of(loaded)).rows
        outcome = perform(() -> predict_rows(loaded, rows, Dict{String,Any}()), loaded.workers)
        outcome isa Outcome && return loaded.good[] = rows
        last_error = outcome
    end
    @error "no row was found that the model takes" exception = (last_error.error, last_error.trace)
    throw(
        StartError(
            "no row was found that the model takes ($(named(last_error.error))): publish the model with samples, requests " *
            "and their right answers (chips publish --samples)",
            EX_DATAERR,
        ),
    )
end

function neutral(tensor::Tensor, dimension, number)
    dimension <= length(tensor.shape) && return Any[neutral(tensor, dimension + 1, number) for _ in 1:abs(tensor.shape[dimension])]
    tensor.categories === nothing || return first(tensor.categories)
    return tensor.datatype == "BYTES" ? "" : tensor.datatype == "BOOL" ? number == 1 : number
end

"The answer's shape, for one row, two and three, in each slot; and for a classifier that of its probabilities."
function check_answers!(loaded::Loaded)
    good = loaded.good[]
    tasks = map(1:loaded.workers.concurrency) do _
        @async rehearsed(loaded, "the same row once, twice and three times") do
            [predict_rows(loaded, good[fill(1, count)], Dict{String,Any}()) for count in 1:3]
        end
    end
    answers = first(first(map(unwrapped, tasks)))
    loaded.outputs[] = output_names(answers, signature_of(loaded))
    loaded.classes === nothing && return
    given = rehearsed(loaded, "the probabilities of a row") do
        predict_rows(loaded, good, Dict{String,Any}("probabilities" => true))
    end
    wanted = isempty(given.names) ? [length(loaded.classes)] : [length(last(part)) for part in loaded.classes]
    map(column -> only(column) isa AbstractVector ? length(only(column)) : -1, given.columns) == wanted || throw(
        StartError("predict answers {\"probabilities\": true} with something else than one number for each class", EX_DATAERR),
    )
end

unwrapped(task) =
    try
        fetch(task)
    catch error
        error isa TaskFailedException || rethrow()
        throw(error.task.result)
    end

brief(value) = first(String(encode(value)), 80)

"Whether two JSON values are the same, numbers within `tolerance` (absolute, and relative to the larger one)."
is_close(got::Bool, wanted::Bool, _) = got == wanted
is_close(::Bool, ::Real, _) = false
is_close(::Real, ::Bool, _) = false
is_close(got::Real, wanted::Real, tolerance) = isapprox(got, wanted, rtol = tolerance, atol = tolerance)
is_close(got::Vector, wanted::Vector, tolerance) =
    length(got) == length(wanted) && all(is_close(g, w, tolerance) for (g, w) in zip(got, wanted))
is_close(got::Dict, wanted::Dict, tolerance) =
    keys(got) == keys(wanted) && all(is_close(got[name], wanted[name], tolerance) for name in keys(got))
is_close(got, wanted, _) = got == wanted
