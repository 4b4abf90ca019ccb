# The model in service: fetched, loaded, warmed up, ready; then scored.

"The model cannot be served; the text says why, `exit_code` how the process ends."
struct StartError <: Exception
    message::String
    exit_code::Int
end
Base.showerror(io::IO, error::StartError) = print(io, error.message)

"How a model is loaded and how it predicts: what predict.jl says."
struct Predictor
    load::Any
    predict::Any
end

"What `predict` may throw where the caller is to be told, with 422: the text goes to the caller."
struct Refused <: Exception
    message::String
end

struct Loaded
    artifact::Artifact
    model::Any
    predict::Any
    workers::Workers
end

"Fetch, check, load and warm up. Throws ArtifactError or StartError."
function bring_into_service(config::Config, predictor::Predictor; environ = ENV)
    artifact = obtain(config, environ = environ)
    @info "the artifact $(artifact.address) is complete and checked" artifact_digest = artifact.digest
    model = try
        predictor.load(artifact.folder, artifact.manifest)
    catch error
        @error "the model could not be loaded" exception = (error, catch_backtrace())
        made_with = join(("$name $version" for (name, version) in artifact.manifest.runtime), ", ")
        throw(
            StartError(
                "$(artifact.address) could not be loaded: $(named(error)). It was made with " *
                "$(isempty(made_with) ? "versions that its manifest does not name" : made_with): are these installed?",
                EX_SOFTWARE,
            ),
        )
    end
    loaded = Loaded(artifact, model, predictor.predict, Workers(config.concurrency))
    warm_up(loaded)
    return loaded
end

named(error) = "$(nameof(typeof(error))): $(first(sprint(showerror, error), 300))"

"Predictions of checked rows, with the time they took; what the model throws comes out as Failed."
function score(loaded::Loaded, scoring::Scoring; deadline = Inf)
    return perform(loaded.workers, deadline = deadline) do
        isempty(scoring.rows) && return Any[]
        given = loaded.predict(loaded.model, scoring.rows, scoring.parameters)
        predictions = given isa AbstractMatrix ? [given[row, :] for row in axes(given, 1)] : collect(given)
        length(predictions) == length(scoring.rows) || throw(
            DimensionMismatch("predict returned $(length(predictions)) predictions for $(length(scoring.rows)) rows"),
        )
        predictions
    end
end

"""
Predict once for every slot: the manifest's first sample, or a row of zeros where it has none. Another answer than the published
one means another environment: stop.
"""
function warm_up(loaded::Loaded)
    manifest = loaded.artifact.manifest
    sample = isempty(manifest.samples) ? nothing : first(manifest.samples)
    outcomes = try
        scoring = read_instances(sample === nothing ? neutral(manifest) : sample.request, manifest.signature)
        tasks = [@async score(loaded, scoring) for _ in 1:loaded.workers.concurrency]
        map(outcome -> outcome isa Failed ? throw(outcome.error) : outcome, map(fetch, tasks))
    catch error
        thrown = (error, catch_backtrace())
        if sample === nothing
            @warn "the manifest has no samples, and a row of zeros could not be predicted to warm up" exception = thrown
            return
        end
        @error "the first sample could not be scored" exception = thrown
        throw(StartError("the manifest's first sample could not be scored: $(named(error))", EX_DATAERR))
    end
    took = "in $(round(first(outcomes).run_s * 1000, digits = 1)) ms"
    if sample === nothing
        @warn "warmed up with a row of zeros, $took; the manifest has no samples, so nobody has checked the model"
        return
    end
    published = get(sample.response, "predictions", nothing)
    for got in (parse_json(encode(outcome.value)) for outcome in outcomes)
        is_close(got, published, sample.tolerance) || throw(
            StartError(
                "the manifest's first sample came out differently from what was published (got $(brief(got)), " *
                "published $(brief(published))): the packages here differ from those the model was made with",
                EX_DATAERR,
            ),
        )
    end
    @info "warmed up: the first sample came out as published, $took"
end

neutral(manifest::Manifest) = Dict{String,Any}("instances" => Any[Any[zero_of(input, 2) for input in manifest.signature.inputs]])

function zero_of(tensor::Tensor, dimension)
    dimension <= length(tensor.shape) &&
        return Any[zero_of(tensor, dimension + 1) for _ in 1:abs(tensor.shape[dimension])]
    return tensor.datatype == "BYTES" ? "" : tensor.datatype == "BOOL" ? false : 0
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
