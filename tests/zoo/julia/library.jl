"Kinds of models as people write them in Julia with its standard library. It knows nothing of CHIPS, as their packages do not."
module Library

using Dates: Date, Day, Year
using LinearAlgebra: I, cholesky, dot, norm, svd
using Random: MersenneTwister
using SparseArrays: sparse
using Statistics: mean, std

with_ones(x) = [x ones(size(x, 1))]

# -- straight lines

fit_ridge(x, y, shrinkage = 0.1) = (coefficients = (with_ones(x)' * with_ones(x) + shrinkage * I) \ (with_ones(x)' * y),)
predict_ridge(model, x) = with_ones(x) * model.coefficients

softmax(scores) = exp.(scores .- maximum(scores, dims = 2)) ./ sum(exp.(scores .- maximum(scores, dims = 2)), dims = 2)

function fit_softmax(x, labels)
    classes = sort(unique(labels))
    truth = Float64.(labels .== permutedims(classes))
    weights = zeros(size(x, 2) + 1, length(classes))
    for _ in 1:500
        weights .-= 0.5 .* with_ones(x)' * (softmax(with_ones(x) * weights) - truth) ./ length(labels)
    end
    return (weights = weights, classes = classes)
end
probabilities_softmax(model, x) = softmax(with_ones(x) * model.weights)
predict_softmax(model, x) = [model.classes[argmax(row)] for row in eachrow(probabilities_softmax(model, x))]

# -- neighbours and centres

fit_neighbours(x, labels) = (points = x, labels = labels)
function predict_neighbours(model, x)
    return map(eachrow(x)) do row
        near = partialsortperm([norm(row - point) for point in eachrow(model.points)], 1:3)
        found = model.labels[near]
        argmax(label -> count(isequal(label), found), sort(unique(found)))
    end
end

function fit_centres(x, number)
    centres = x[1:number, :]
    for _ in 1:20
        mine = predict_centres((centres = centres,), x)
        centres = reduce(vcat, [mean(x[mine .== k, :], dims = 1) for k in 1:number])
    end
    return (centres = centres,)
end
predict_centres(model, x) = [argmin([norm(row - centre) for centre in eachrow(model.centres)]) for row in eachrow(x)]

# -- linear algebra

function fit_components(x, number)
    centre = mean(x, dims = 1)
    return (centre = centre, directions = svd(x .- centre).V[:, 1:number])
end
predict_components(model, x) = (x .- model.centre) * model.directions

kernel(a, b) = exp(-norm(a - b)^2 / 2)
function fit_process(x, y)
    gram = [kernel(a, b) for a in eachrow(x), b in eachrow(x)] + 0.1I
    return (points = x, weights = cholesky(gram) \ y)
end
predict_process(model, x) = [dot([kernel(row, point) for point in eachrow(model.points)], model.weights) for row in eachrow(x)]

# -- networks, as Flux holds their weights: Float32

function fit_network(x, y)
    random = MersenneTwister(2)
    one, two = randn(random, Float32, 8, size(x, 2)), randn(random, Float32, 1, 8)
    for _ in 1:200
        hidden = tanh.(one * Float32.(x'))
        wrong = two * hidden .- Float32.(y')
        slope = (two' * wrong) .* (1 .- hidden .^ 2)
        two .-= 0.01f0 .* wrong * hidden' ./ length(y)
        one .-= 0.01f0 .* slope * Float32.(x) ./ length(y)
    end
    return (layers = [one, two],)
end
predict_network(model, x) = vec(model.layers[2] * tanh.(model.layers[1] * Float32.(x')))

# -- categories, text, dates, several outputs

function fit_bayes(colours, sizes, labels)
    classes = sort(unique(labels))
    known(values) = sort(unique(values))
    table(values) =
        Dict(value => [log((1 + count((values .== value) .& (labels .== class))) / (1 + count(labels .== class))) for class in classes] for value in known(values))
    return (classes = classes, colours = table(colours), sizes = table(sizes))
end
"A KeyError for a category that was never seen."
predict_bayes(model, colours, sizes) =
    [model.classes[argmax(model.colours[colour] + model.sizes[size])] for (colour, size) in zip(colours, sizes)]

words(text) = split(lowercase(text))
function fit_words(texts, y)
    vocabulary = Dict(word => place for (place, word) in enumerate(sort(unique(reduce(vcat, map(words, texts))))))
    model = (vocabulary = vocabulary, weights = zeros(length(vocabulary)))
    x = counts(model, texts)
    return (vocabulary = vocabulary, weights = (Matrix(x' * x) + I) \ (x' * y))
end
function counts(model, texts)
    found = [(row, model.vocabulary[word]) for (row, text) in enumerate(texts) for word in words(text) if haskey(model.vocabulary, word)]
    return sparse(Int[first(pair) for pair in found], Int[last(pair) for pair in found], 1.0, length(texts), length(model.vocabulary))
end
predict_words(model, texts) = counts(model, texts) * model.weights

"The day on which a bond of so many years and days, bought on a day, is due, and what it pays."
predict_bond(model, bought, years, days) =
    (due = [Date(day) + Year(y) + Day(d) for (day, y, d) in zip(bought, years, days)], pays = model.rate .* years .+ model.daily .* days)

end
