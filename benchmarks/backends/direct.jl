# The Julia model called without a backend: FOLDER SECONDS ROWS... prints the median milliseconds for each number of rows.

using ChipsBackend: Backend
include(ENV["PREDICT"])

using Statistics: median

function main(folder, seconds, counts...)
    manifest = Backend.parse_manifest(read(joinpath(folder, "manifest.json")))
    model = Predict.load(folder, manifest)
    medians = map(counts) do count
        body = "{\"instances\":[" * join(Iterators.repeated("[1.5,2,3]", parse(Int, count)), ",") * "]}"
        rows = Backend.table(Backend.read_instances(body, manifest.signature).rows)
        parameters = Dict{String,Any}()
        foreach(_ -> Predict.predict(model, rows, parameters), 1:20)
        taken = Float64[]
        finish = time() + parse(Float64, seconds)
        while time() < finish
            began = time_ns()
            Predict.predict(model, rows, parameters)
            push!(taken, (time_ns() - began) / 1e6)
        end
        median(taken)
    end
    println("[", join(medians, ", "), "]")
end

main(ARGS...)
