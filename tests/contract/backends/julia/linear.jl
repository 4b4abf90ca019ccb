"2x + 3n + k, and what the tests ask for next to it."
module Predict

const PARAMETERS = ["begun", "compute_until", "exit", "fail", "gate"]

using ..Backend: main_file
using Serialization: deserialize

load(folder, manifest) = deserialize(joinpath(folder, main_file(manifest, ".jls")))

function predict(weights, rows, parameters)
    haskey(parameters, "begun") && touch(parameters["begun"])
    gate = get(parameters, "gate", nothing)
    while gate isa String && !ispath(gate)
        sleep(0.005)
    end
    haskey(parameters, "fail") && throw(InterruptException())  # which is never the caller's fault
    haskey(parameters, "exit") && exit(parameters["exit"])
    haskey(parameters, "compute_until") && spin(parameters["compute_until"])
    return sum(weights .* values(rows))
end

"Compute until there is a file at `path`, and let nobody else have the thread."
function spin(path)
    sum = 0.0
    while !ispath(path)
        sum += rand()
    end
    return sum
end

end
