# The backend's OpenAPI 3.1 document: openapi.json, with the model's name and its real fields, taken from its signature.

const OPENAPI = read(joinpath(@__DIR__, "openapi.json"), String)

function describe(manifest::Manifest)
    document = parse_json(replace(OPENAPI, "MODEL" => manifest.model))
    document["info"] = object("title" => manifest.model, "version" => manifest.version)
    schemas = document["components"]["schemas"]
    schemas["Instance"] = instance_schema(manifest.signature.inputs)
    isempty(manifest.samples) || (schemas["Request"]["examples"] = [first(manifest.samples).request])
    answered = schemas["Response"]["properties"]
    answered["model"], answered["version"] = object("const" => manifest.model), object("const" => manifest.version)
    outputs = manifest.signature.outputs
    isempty(outputs) || (answered["predictions"]["items"] = prediction_schema(outputs))
    return document
end

function instance_schema(inputs)
    isempty(inputs) && return object()
    by_name = object(
        "type" => "object",
        "required" => [input.name for input in inputs],
        "properties" => Dict{String,Any}(input.name => value_schema(input, 2) for input in inputs),
        "additionalProperties" => false,
    )
    in_order = object(
        "type" => "array",
        "prefixItems" => [value_schema(input, 2) for input in inputs],
        "items" => false,
        "minItems" => length(inputs),
    )
    return object("oneOf" => [by_name, in_order])
end

prediction_schema(outputs) =
    length(outputs) == 1 ? value_schema(only(outputs), 2) :
    object(
        "type" => "object",
        "required" => [output.name for output in outputs],
        "properties" => Dict{String,Any}(output.name => value_schema(output, 2) for output in outputs),
    )

function value_schema(tensor::Tensor, dimension)
    if dimension <= length(tensor.shape)
        size = tensor.shape[dimension]
        schema = object("type" => "array", "items" => value_schema(tensor, dimension + 1))
        return size < 0 ? schema : [schema; object("minItems" => size, "maxItems" => size)]
    end
    tensor.categories === nothing || return object("enum" => [tensor.categories; nothing])
    name = tensor.datatype
    type = name == "BOOL" ? "boolean" : name == "BYTES" ? "string" : startswith(name, "FP") ? "number" : "integer"
    return object("type" => [type, "null"])
end
