# A backend's life: read the environment, listen, load, be ready; when asked to stop, finish what runs and end with 0.

const STOP_GRACE_S = 8.0  # Cloud Run kills after 10

"""
Serve until `input` ends (bin/serve ends its program's on SIGTERM), if there is one; return the process's exit code.

`listen(app, port)` starts a web server that answers by `handle(app, request)`, and returns the port and a function that stops
it: no new connections, and what runs finishes.
"""
function serve(listen, predictor::Predictor; environ = ENV, input = nothing, output = stdout)
    config = try
        read_config(environ, capacity = capacity())
    catch error
        error isa ConfigError || rethrow()
        println(stderr, "error: ", sprint(showerror, error))
        return EX_CONFIG
    end
    known = ("model" => config.model, "version" => config.version, "service" => config.service, "revision" => config.revision)
    facts = Dict{String,Any}(name => fact for (name, fact) in known if !(fact in (nothing, "")))
    logger = CloudLogger(output, facts)
    global_logger(logger)
    return with_logger(() -> serve(listen, predictor, config, environ, input), logger)
end

function serve(listen, predictor::Predictor, config::Config, environ, input)
    forbid_exit()
    app = App(config)
    port, stop_listening = try
        listen(app, config.port)
    catch error
        hint = is_port_taken(error) ? "; set PORT to another one" : ""
        @error "cannot listen on port $(config.port): $(first(sprint(showerror, error), 200))$hint" exception =
            (error, catch_backtrace())
        return isempty(hint) ? EX_SOFTWARE : EX_OSERR
    end
    @info "listening on port $port, loading $(config.artifact)" port = port
    events = Channel{Any}(2)
    input === nothing || @async (read(input); put!(events, :stop))
    # In a thread that predicts, so that the one that answers can answer meanwhile.
    start_in_thread(() -> put!(events, load_or_error(config, predictor, environ, port)))
    event = take!(events)
    if event isa Union{ArtifactError,StartError}
        @error "cannot start: $(event.message)"
        return event.exit_code
    elseif event isa Failed
        @error "cannot start: $(named(event.error))" exception = (event.error, event.trace)
        return EX_SOFTWARE
    elseif event isa Loaded
        become_ready!(app, event)
        @info "ready: $(app.served), $(config.concurrency) predictions at once"
        take!(events)
    end
    @info "stopping: no new requests are taken; what runs may finish"
    stopped = @async stop_listening()
    timedwait(() -> istaskdone(stopped) && app.running[] == 0, STOP_GRACE_S)
    event isa Loaded && close(event.workers)
    @info "stopped"
    return 0
end

is_port_taken(error) = error isa Base.IOError && error.code in (Base.UV_EADDRINUSE, Base.UV_EACCES)

function load_or_error(config, predictor, environ, port)
    try
        loaded = bring_into_service(config, with_own_code(predictor, config.predict), environ = environ)
        know!(current_logger(), loaded.artifact.manifest)
        rehearse(config, loaded)
        ask_over_loopback(port, "GET", "/v2/health/live")  # the web server, too, has answered once before we are ready
        return loaded
    catch error
        return error isa Union{ArtifactError,StartError} ? error : Failed(error, catch_backtrace())
    end
end

"Answer a request of each kind once, without a caller: Julia compiles it then, and the first caller does not wait for that."
function rehearse(config, loaded)
    app = App(config)
    become_ready!(app, loaded)
    model = "/v2/models/$(loaded.artifact.manifest.model)"
    samples = loaded.artifact.manifest.samples
    bodies = ["{", "{\"instances\":[{\"\":0}]}", (String(encode(sample.request)) for sample in first_items(samples, 1))...]
    with_logger(CloudLogger(devnull)) do
        for path in ("/v2/health/ready", "/openapi.json", "/nothing", model)
            handle(app, Request("GET", path, Headers()))
        end
        for path in ("/predict", "$model/infer"), body in bodies
            handle(app, Request("POST", path, ["Content-Type" => JSON_TYPE], body))
        end
    end
end

"End the process at once: a download or a prediction that is still under way must not hold up the end."
function leave(code)
    flush(stdout)
    flush(stderr)
    ccall(:_exit, Cvoid, (Cint,), code)
end
