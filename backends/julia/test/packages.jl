# Project.toml knows what the code uses, and bounds all of it.

const FOLDER = dirname(@__DIR__)
const PARTS = ("src/ChipsBackend.jl", "src/GenieServer.jl", "src/jld2.jl", "bin/serve.jl", "sysimage/build.jl", "sysimage/trace.jl")

parsed(path) = Base.parse_input_line(read(joinpath(FOLDER, path), String), filename = path)

"The packages that a piece of parsed Julia imports by their own names."
function imported(code, found = Set{String}())
    code isa Expr || return found
    if code.head in (:import, :using)
        for argument in code.args
            path = argument.head == :(:) ? argument.args[1] : argument
            path.args[1] == :. || push!(found, string(path.args[1]))
        end
    end
    foreach(part -> imported(part, found), code.args)
    return found
end

"The names in one table of a TOML file whose lines are plain."
function names_in(path, table)
    text = read(joinpath(FOLDER, path), String)
    found = match(Regex("^\\[$table\\]\\n((?:[A-Za-z].*\\n)*)", "m"), text)
    return Set(String(strip(first(split(line, '=')))) for line in split(found[1], '\n', keepempty = false))
end

for path in PARTS
    @test !(parsed(path).head in (:incomplete, :error))
end

used(paths) = reduce(union, map(path -> imported(parsed(path)), paths))

@test used([joinpath("src", name) for name in readdir(joinpath(FOLDER, "src"))]) == names_in("Project.toml", "deps")
@test names_in("Project.toml", "deps") ⊆ names_in("Project.toml", "compat")
@test used(["sysimage/build.jl", "sysimage/trace.jl"]) == names_in("sysimage/Project.toml", "deps")
