# Tensors in binary form: the same values as in JSON, bit for bit, and every length is checked.

using .Backend: Forms, Problem, Signature, Tensor, pack!, read_tensors, table
using .Backend.StrictJSON: encode

"A request with tensors as (name, shape, datatype, bytes), and how many of its bytes are JSON."
function with_bytes(tensors...; size = length, more = UInt8[])
    described = map(tensors) do (name, shape, datatype, bytes)
        (name = name, shape = shape, datatype = datatype, parameters = (binary_data_size = size(bytes),))
    end
    json = encode((inputs = collect(described),))
    return String(reduce(vcat, [json, map(last, tensors)..., more])), length(json)
end

raw(values) = collect(reinterpret(UInt8, htol.(values)))
texts(values...) = reduce(vcat, [[raw([UInt32(sizeof(text))]); Vector{UInt8}(text)] for text in values])

function read_binary(signature, tensors...; json_bytes = nothing, options...)
    text, size = with_bytes(tensors...; options...)
    try
        return collect(Any, values(table(read_tensors(text, signature, json_bytes = something(json_bytes, size)).rows)))
    catch error
        error isa Problem || rethrow()
        return error.detail
    end
end

one_input(datatype, shape = [-1]) = Signature([Tensor("v", datatype, shape)], [])

@testset "each datatype, little-endian" begin
    for (datatype, values, read) in (
        ("FP64", [1.5, -0.0, nextfloat(0.1)], [1.5, -0.0, nextfloat(0.1)]),
        ("FP32", Float32[1.5, 0.1], [1.5, Float64(0.1f0)]),
        ("FP16", Float16[1.5, 65504], [1.5, 65504.0]),
        ("INT64", [typemin(Int64), typemax(Int64)], [typemin(Int64), typemax(Int64)]),
        ("UINT64", [typemax(UInt64)], [typemax(UInt64)]),
        ("INT8", Int8[-128, 127], [-128, 127]),
        ("UINT8", UInt8[0, 255], [0, 255]),
        ("INT32", Int32[-7], [-7]),
        ("BOOL", UInt8[0, 1], [false, true]),
    )
        got = read_binary(one_input(datatype), ("v", [length(values)], datatype, raw(values)))
        @test isequal(got, [read])
    end
    @test read_binary(one_input("BYTES"), ("v", [3], "BYTES", texts("Ulm", "", "Köln"))) == [["Ulm", "", "Köln"]]
    @test isequal(read_binary(one_input("FP64"), ("v", [2], "FP32", raw(Float32[NaN, 2]))), [[missing, 2.0]])
    @test read_binary(one_input("FP64", [-1, 2]), ("v", [2, 2], "FP64", raw([1.0, 2, 3, 4]))) == [[[1.0, 2.0], [3.0, 4.0]]]
    two = Signature([Tensor("a", "FP64", [-1]), Tensor("b", "INT8", [-1])], [])
    @test read_binary(two, ("all", [2, 2], "INT64", raw([1, 2, 3, 4]))) == [[1.0, 3.0], [2, 4]]
    @test read_binary(two, ("b", [1], "INT8", Int8[5] .|> (x -> x % UInt8)), ("a", [1], "FP64", raw([2.5]))) == [[2.5], [5]]
    @test isempty(only(read_binary(one_input("FP64"), ("v", [0], "FP64", UInt8[]))))
end

@testset "what does not come out even is refused" begin
    fp64 = one_input("FP64")
    for (got, words) in (
        read_binary(fp64, ("v", [2], "FP64", raw([1.0]))) => "2 values of FP64 are 16 bytes, binary_data_size is 8",
        read_binary(fp64, ("v", [1], "FP64", raw([1.0])), size = bytes -> 9) => "binary_data_size is 9, but 8 bytes are left",
        read_binary(fp64, ("v", [1], "FP64", raw([1.0])), size = bytes -> -1) => "must be a whole number of bytes",
        read_binary(fp64, ("v", [1], "FP64", raw([1.0])), size = bytes -> "8") => "must be a whole number of bytes, got \"8\"",
        read_binary(fp64, ("v", [1], "FP64", raw([1.0])), size = bytes -> 8.0) => "must be a whole number of bytes",
        read_binary(fp64, ("v", [1], "FP64", raw([1.0])), more = [0x00]) => "1 bytes behind the JSON belong to no tensor",
        read_binary(fp64, ("v", [2], "FP64", raw([1.0, Inf]))) => "inputs[0].data[1]: expected a finite number",
        read_binary(fp64, ("v", [1], "INT64", raw([2^53 + 1])), json_bytes = 0) => "not JSON",
        read_binary(one_input("BOOL"), ("v", [2], "BOOL", [0x01, 0x02])) => "inputs[0].data[1]: expected true or false, got 2",
        read_binary(one_input("INT8"), ("v", [2], "INT64", raw([1, 128]))) => "v[1]: expected INT8, got 128, which does not fit",
        read_binary(one_input("BYTES"), ("v", [1], "BYTES", texts("a")[1:4])) => "longer than what is left",
        read_binary(one_input("BYTES"), ("v", [1], "BYTES", [0x01, 0x00])) => "longer than what is left",
        read_binary(one_input("BYTES"), ("v", [1], "BYTES", [0xff, 0xff, 0xff, 0xff, 0x61])) => "longer than what is left",
        read_binary(one_input("BYTES"), ("v", [1], "BYTES", texts("a", "b"))) => "means 1 values, data has 2",
        read_binary(one_input("BYTES"), ("v", [1], "BYTES", texts("\xff"))) => "is not UTF-8",
        read_binary(one_input("BYTES"), ("v", [1], "FP64", raw([1.0]))) => "v[0]: expected a string, got 1.0",
    )
        @test occursin(words, got)
    end
    both = "{\"inputs\":[{\"name\":\"v\",\"shape\":[1],\"datatype\":\"FP64\",\"data\":[1],\"parameters\":{\"binary_data_size\":8}}]}"
    neither = replace(both, "\"data\":[1]," => "", "\"binary_data_size\":8" => "")
    detail(text; options...) =
        try
            read_tensors(text, fp64; options...)
        catch error
            error.detail
        end
    @test occursin("either data or binary_data_size", detail(both, json_bytes = sizeof(both)))
    @test occursin("needs the header", detail(both))
    @test occursin("data must be an array, or", detail(neither))
end

@testset "outputs that are wanted in binary form leave the JSON" begin
    output(datatype, data) = Backend.object("name" => datatype, "shape" => [length(data)], "datatype" => datatype, "data" => data)
    all, none = Forms(true, Dict{String,Bool}()), Forms()
    for (datatype, data, bytes) in (
        ("FP64", [1.5, NaN], raw([1.5, NaN])),
        ("FP64", Any[1, missing, Inf], raw([1.0, NaN, NaN])),
        ("FP32", [0.1], raw([0.1f0])),
        ("FP16", [1.5], raw([Float16(1.5)])),
        ("INT8", [-1], [0xff]),
        ("UINT64", Any[big(2)^64-1], raw([typemax(UInt64)])),
        ("BOOL", [true, false], [0x01, 0x00]),
        ("BYTES", ["é"], [0x02, 0x00, 0x00, 0x00, 0xc3, 0xa9]),
    )
        outputs = [output(datatype, data)]
        @test pack!(outputs, none) === nothing && haskey(Dict(outputs[1]), "data")
        @test pack!(outputs, all) == bytes
        fields = Dict(outputs[1])
        @test !haskey(fields, "data") && Dict(fields["parameters"]) == Dict("binary_data_size" => length(bytes))
    end
    mixed = [output("INT8", Any[1, missing]), output("FP64", [2.0])]
    @test pack!(mixed, all) == raw([2.0]) && haskey(Dict(mixed[1]), "data")
    @test pack!([output("INT8", Any[missing])], all) === nothing
    @test pack!([output("FP64", [2.0])], Forms(true, Dict("FP64" => false))) === nothing
end
