"""
Train a small real model: which of three cultivars is this wine, by thirteen measurements?

    julia examples/wine/train.jl OUT

writes OUT/model.jls, OUT/signature.json and OUT/samples.json, which `publish.jl` and `chips publish` take.

The data, wine.csv, are the UCI wine data set (Aeberhard and Forina, 1991, https://doi.org/10.24432/C5PC7J, licence CC BY 4.0):
178 wines from three cultivars of one region. The model is a softmax regression with a little shrinkage, fitted by gradient
descent on standardized measurements; a quarter of the wines is kept to test it.
"""

using LinearAlgebra: norm
using Random: MersenneTwister, randperm
using Serialization: serialize
using Statistics: mean, std

include("../../src/StrictJSON.jl")

const SHRINKAGE = 0.01

function main(out)
    mkpath(out)
    names, measurements, cultivars = read_wine(joinpath(@__DIR__, "wine.csv"))
    order = randperm(MersenneTwister(7), length(cultivars))
    known, unseen = order[1:133], order[134:end]
    model = fit(measurements[known, :], cultivars[known])
    right = mean(classify(model, measurements[unseen, :]) .== cultivars[unseen])
    println("accuracy on $(length(unseen)) wines it has not seen: $(round(right, digits = 3))")
    # Plain arrays in a named tuple: no type of our own has to be there when the file is read.
    serialize(joinpath(out, "model.jls"), model)
    write_json(
        joinpath(out, "signature.json"),
        (
            inputs = [(name = name, datatype = "FP64", shape = [-1]) for name in names],
            outputs = [(name = "cultivar", datatype = "INT64", shape = [-1])],
        ),
    )
    samples = map(unseen[1:3]) do wine
        row = measurements[wine:wine, :]
        (
            request = (instances = [Pair{String,Any}[name => value for (name, value) in zip(names, row)]],),
            response = (predictions = classify(model, row),),
            tolerance = 1e-6,
        )
    end
    write_json(joinpath(out, "samples.json"), samples)
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

write_json(path, content) = write(path, StrictJSON.encode(content, indent = 2), "\n")

length(ARGS) == 1 || (println(stderr, "usage: julia examples/wine/train.jl OUT"); exit(64))
main(only(ARGS))
