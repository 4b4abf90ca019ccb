# What a backend does in its life, over the network and by Genie, for PackageCompiler to watch.

using ChipsBackend: Backend, GenieServer, PREDICTOR

Backend.exercise(GenieServer.listen, PREDICTOR)
