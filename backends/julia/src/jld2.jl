# Models in JLD2 files: the model is what the file has under `model`. Apart, since it needs a package.

import JLD2

Predict.load(::Val{:jld2}, folder, manifest) = JLD2.load(joinpath(folder, Backend.main_file(manifest, ".jld2")), "model")
