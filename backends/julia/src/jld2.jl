# Models in JLD2 files: the model is what the file has under `model`. Apart, since it needs a package.

import JLD2

load_jld2(path) = JLD2.load(path, "model")

Predict.load(::Val{:jld2}, folder, manifest) = load_jld2(joinpath(folder, Backend.main_file(manifest, ".jld2")))

Backend.WRITERS["jld2"] = (path, model) -> JLD2.jldsave(path; model)
Backend.READERS["jld2"] = load_jld2
