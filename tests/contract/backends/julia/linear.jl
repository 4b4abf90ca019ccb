"2x + 3n + k, and what the tests ask for next to it."
module Predict

const PARAMETERS = ["compute_s", "exit", "fail", "gate"]

using ..Backend: main_file
using Serialization: deserialize

load(folder, manifest) = deserialize(joinpath(folder, main_file(manifest, ".jls")))

function predict(weights, rows, parameters)
    gate = get(parameters, "gate", nothing)
    while gate isa String && !ispath(gate)
        sleep(0.005)
    end
    haskey(parameters, "fail") && throw(InterruptException())  # which is never the caller's fault
    haskey(parameters, "exit") && exit(parameters["exit"])
    haskey(parameters, "compute_s") && spin(parameters["compute_s"])
    return sum(weights .* values(rows))
end

"Compute, and let nobody else have the thread."
function spin(seconds)
    ends, sum = time() + seconds, 0.0
    while time() < ends
        sum += rand()
    end
    return sum
end

end
