# Compile everything a start needs into one file, ChipsBackend.so, which bin/serve then uses:
#
#   julia --project=sysimage sysimage/build.jl
#
# It takes several minutes and saves about a second of each start; without it the package is compiled by its workload alone.

using PackageCompiler: create_sysimage

const FOLDER = dirname(@__DIR__)

create_sysimage(
    ["ChipsBackend"],
    sysimage_path = joinpath(FOLDER, "ChipsBackend.so"),
    project = FOLDER,
    precompile_execution_file = joinpath(@__DIR__, "trace.jl"),
    # The machine that runs is not the one that builds; bin/processor-kinds names those of Cloud Run.
    cpu_target = get(ENV, "JULIA_CPU_TARGET", readchomp(`$(joinpath(FOLDER, "bin/processor-kinds"))`)),
)
