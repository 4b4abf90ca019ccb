# A backend's whole life without the network, for nobody: run while the package is compiled, so that starts need not compile.

"Publish a model of one number, serve it, and answer requests of each kind."
function exercise()
    mktempdir() do folder
        serialize(joinpath(folder, "model.jls"), 2.0)
        sample = (request = (instances = [[1.0], (x = 2,)],), response = (predictions = [2.0, 4.0],), tolerance = 1e-6)
        with_logger(CloudLogger(devnull)) do
            place = publish(
                joinpath(folder, "model.jls"),
                model = "exercise",
                version = "1",
                store = joinpath(folder, "store"),
                signature = (inputs = [(name = "x", datatype = "FP64")], outputs = [(name = "y", datatype = "FP64")]),
                samples = [sample],
            )
            environ = Dict("CHIPS_MODEL" => "exercise", "CHIPS_VERSION" => "1", "CHIPS_ARTIFACT" => place)
            config = read_config(environ)
            predictor = Predictor(
                (folder, manifest) -> deserialize(joinpath(folder, main_file(manifest, ".jls"))),
                (factor, rows, _) -> [factor * row[1] for row in rows],
            )
            loaded = load_or_error(config, predictor, environ)
            loaded isa Loaded || throw(loaded.error)
            close(loaded.workers.line)
            return nothing
        end
    end
end
