# Train @NAME@ and save it to trained/. Put your own data and model here.
#
#     julia --project=. train.jl [--overwrite]

using ChipsBackend
using LinearAlgebra: norm
using Random: MersenneTwister, randperm
using Statistics: mean, std

const OVERWRITE = "--overwrite" in ARGS

if ispath("trained") && !OVERWRITE
    println(stderr, "trained/ is there already: julia --project=. train.jl --overwrite replaces what an earlier run saved")
    exit(1)
end

"The measurements of 178 wines by name, and which of three cultivars each is."
function read_wines(path)
    header, lines = Iterators.peel(eachline(path))
    rows = reduce(hcat, [parse.(Float64, split(line, ',')) for line in lines])
    names = Tuple(Symbol.(split(header, ',')[1:(end-1)]))
    return NamedTuple{names}(Tuple(rows[place, :] for place in eachindex(names))), Int.(rows[end, :])
end

"A softmax regression with a little shrinkage, by gradient descent on standardized measurements."
function fit(wines, cultivars)
    table = stack(wines)
    means, scales = mean(table, dims = 1), std(table, dims = 1)
    x = [(table .- means) ./ scales ones(length(cultivars))]
    classes = sort(unique(cultivars))
    coefficients = zeros(size(x, 2), length(classes))
    for _ in 1:10_000
        scores = exp.(x * coefficients)
        gradient = x' * (scores ./ sum(scores, dims = 2) - (cultivars .== permutedims(classes))) / length(cultivars)
        gradient[1:(end-1), :] .+= 0.01 * coefficients[1:(end-1), :]
        norm(gradient) < 1e-9 && break
        coefficients .-= gradient
    end
    # Plain arrays: no package has to be there when the file is read.
    return (; means, scales, weights = coefficients[1:(end-1), :], intercepts = coefficients[end:end, :], classes)
end

wines, cultivars = read_wines(joinpath(pkgdir(ChipsBackend), "examples/wine/wine.csv"))
order = randperm(MersenneTwister(7), length(cultivars))
known, unseen = order[1:133], order[134:end]
training, example = map(column -> column[known], wines), map(column -> column[unseen], wines)
model = fit(training, cultivars[known])
right = ChipsBackend.Predict.predict(model, example, Dict()) .== cultivars[unseen]
println("accuracy on $(length(unseen)) wines it has not seen: $(round(mean(right), digits = 3))")
save_model(model, "trained"; example, training, predict = "predict.jl", overwrite = OVERWRITE)
