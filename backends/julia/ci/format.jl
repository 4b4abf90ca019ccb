# julia --project=. ci/format.jl [--write]: hold the code against .JuliaFormatter.toml, or bring it into that form. JuliaFormatter
# needs no project of its own, since Genie brings it.

const FORMATTER = Base.require(Base.PkgId(Base.UUID("98e50ef6-434e-11e9-1051-2b60c6c9e899"), "JuliaFormatter"))
const FOLDER = dirname(@__DIR__)
const PLACES = [joinpath(FOLDER, name) for name in ("bin", "ci", "examples", "ext", "src", "sysimage", "test")]

write_it = "--write" in ARGS
differing = String[]
for place in filter(isdir, PLACES), (folder, _, names) in walkdir(place), name in names
    path = joinpath(folder, name)
    endswith(name, ".jl") || continue
    Base.invokelatest(FORMATTER.format_file, path, overwrite = write_it) || push!(differing, relpath(path, FOLDER))
end
write_it || isempty(differing) || println(stderr, "error: run make -C backends/julia format for\n  ", join(differing, "\n  "))
exit(write_it || isempty(differing) ? 0 : 1)
