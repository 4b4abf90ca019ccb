"""
Train a small real model: which of three cultivars is this wine, by thirteen measurements?

    julia examples/wine/train.jl OUT

writes OUT/model.jls, OUT/signature.json and OUT/samples.json, which `publish` and `chips publish` take.

The data, wine.csv, are the UCI wine data set (Aeberhard and Forina, 1991, https://doi.org/10.24432/C5PC7J, licence CC BY 4.0):
178 wines from three cultivars of one region. The model is a softmax regression with a little shrinkage, fitted by gradient
descent on standardized measurements; a quarter of the wines is kept to test it.
"""

using LinearAlgebra: norm
using Random: MersenneTwister, randperm
using Statistics: mean, std

# The backend without its web server, so that training needs no packages; elsewhere it is `using ChipsBackend: save_model`.
include("../../src/Backend.jl")
include("../../src/predict.jl")
using .Backend: Predictor, save_model

const SHRINKAGE = 0.01

function main(out)
    names, measurements, cultivars = read_wine(joinpath(@__DIR__, "wine.csv"))
    order = randperm(MersenneTwister(7), length(cultivars))
    known, unseen = order[1:133], order[134:end]
    model = fit(measurements[known, :], cultivars[known])
    right = mean(classify(model, measurements[unseen, :]) .== cultivars[unseen])
    println("accuracy on $(length(unseen)) wines it has not seen: $(round(right, digits = 3))")
    # Plain arrays in a named tuple: no type of our own has to be there when the file is read.
    save_model(
        model,
        out,
        example = measurements[unseen, :],
        names = names,
        predictor = Predictor(Predict),
        format = "jls",
        overwrite = true,
    )
end

function read_wine(path)
    header, lines = Iterators.peel(eachline(path))
    rows = [parse.(Float64, split(line, ',')) for line in lines]
    table = permutedims(reduce(hcat, rows))
    return String.(split(header, ','))[1:(end-1)], table[:, 1:(end-1)], Int.(table[:, end])
end

function fit(measurements, cultivars)
    means, scales = mean(measurements, dims = 1), std(measurements, dims = 1)
    x = [(measurements .- means) ./ scales ones(length(cultivars))]
    classes = sort(unique(cultivars))
    truth = cultivars .== permutedims(classes)
    coefficients = zeros(size(x, 2), length(classes))
    for _ in 1:10_000
        gradient = x' * (softmax(x * coefficients) - truth) / length(cultivars)
        gradient[1:(end-1), :] .+= SHRINKAGE * coefficients[1:(end-1), :]
        norm(gradient) < 1e-9 && break
        coefficients .-= gradient
    end
    return (
        means = means,
        scales = scales,
        weights = coefficients[1:(end-1), :],
        intercepts = coefficients[end:end, :],
        classes = classes,
    )
end

function softmax(scores)
    shifted = exp.(scores .- maximum(scores, dims = 2))
    return shifted ./ sum(shifted, dims = 2)
end

function classify(model, measurements)
    scores = (measurements .- model.means) ./ model.scales * model.weights .+ model.intercepts
    return [model.classes[argmax(row)] for row in eachrow(scores)]
end

length(ARGS) == 1 || (println(stderr, "usage: julia examples/wine/train.jl OUT"); exit(64))
main(only(ARGS))
