# The backend's OpenAPI 3.1 document, with the model's real fields taken from its signature.

function describe(config::Config, manifest::Manifest)
    model = "/v2/models/$(config.model)"
    return (
        openapi = "3.1.0",
        info = (title = config.model, version = config.version),
        paths = Dict(
            "/predict" => post_operation("Predict", "Request", "Response"),
            "$model/infer" => post_operation("Infer", "InferRequest", "InferResponse"),
            model => get_operation("Metadata"),
            "$model/ready" => get_operation("Readiness of the model"),
            "/v2/health/live" => get_operation("Liveness"),
            "/v2/health/ready" => get_operation("Readiness"),
        ),
        components = (schemas = schemas(config, manifest),),
    )
end

reference(name) = Dict("\$ref" => "#/components/schemas/$name")

answer(description, schema) =
    (description = description, content = Dict("application/json" => (schema = schema,)))

problem_answer() = (
    description = "A problem (RFC 9457)",
    content = Dict("application/problem+json" => (schema = reference("Problem"),)),
)

post_operation(summary, request, response) = (
    post = (
        summary = summary,
        operationId = replace(lowercase(summary), ' ' => '_'),
        requestBody = (required = true, content = Dict("application/json" => (schema = reference(request),))),
        responses = Dict{String,Any}(
            "200" => answer("Predictions", reference(response)),
            (status => problem_answer() for status in ("400", "413", "415", "422", "500", "503", "504"))...,
        ),
    ),
)

get_operation(summary) = (
    get = (
        summary = summary,
        responses = Dict{String,Any}("200" => answer(summary, (type = "object",)), "default" => problem_answer()),
    ),
)

function schemas(config::Config, manifest::Manifest)
    inputs, outputs = manifest.signature.inputs, manifest.signature.outputs
    text, whole = (type = "string",), (type = "integer",)
    request = Pair{String,Any}[
        "type" => "object",
        "required" => ["instances"],
        "properties" => (
            instances = (type = "array", items = reference("Instance")),
            parameters = (type = "object",),
        ),
    ]
    isempty(manifest.samples) || push!(request, "examples" => [first(manifest.samples).request])
    return (
        Instance = instance_schema(inputs),
        Request = request,
        Response = (
            type = "object",
            required = ["predictions", "model", "version"],
            properties = (
                predictions = (
                    type = "array",
                    items = isempty(outputs) ? Dict{String,Any}() : value_schema(first(outputs), 2),
                ),
                model = (var"const" = config.model,),
                version = (var"const" = config.version,),
            ),
        ),
        InferRequest = (
            type = "object",
            required = ["inputs"],
            properties = (id = text, inputs = (type = "array", items = reference("Tensor"), minItems = 1)),
        ),
        InferResponse = (
            type = "object",
            required = ["model_name", "outputs"],
            properties = (
                model_name = text,
                model_version = text,
                id = text,
                outputs = (type = "array", items = reference("Tensor")),
            ),
        ),
        Tensor = (
            type = "object",
            required = ["name", "shape", "datatype", "data"],
            properties = (
                name = text,
                shape = (type = "array", items = (type = "integer", minimum = 0)),
                datatype = text,
                data = (type = "array",),
            ),
        ),
        Problem = (
            type = "object",
            required = ["type", "title", "status", "code", "detail", "request_id"],
            properties = (
                type = text,
                title = text,
                status = whole,
                code = text,
                detail = text,
                request_id = text,
                error = text,
            ),
        ),
    )
end

function instance_schema(inputs)
    isempty(inputs) && return Dict{String,Any}()
    by_name = (
        type = "object",
        required = [input.name for input in inputs],
        properties = Pair{String,Any}[input.name => value_schema(input, 2) for input in inputs],
        additionalProperties = false,
    )
    in_order = (
        type = "array",
        prefixItems = [value_schema(input, 2) for input in inputs],
        items = false,
        minItems = length(inputs),
    )
    return (oneOf = [by_name, in_order],)
end

function value_schema(tensor::Tensor, dimension)
    if dimension <= length(tensor.shape)
        size, items = tensor.shape[dimension], value_schema(tensor, dimension + 1)
        size < 0 && return (type = "array", items = items)
        return (type = "array", items = items, minItems = size, maxItems = size)
    end
    name = tensor.datatype
    type = name == "BOOL" ? "boolean" : name == "BYTES" ? "string" : startswith(name, "FP") ? "number" : "integer"
    return (type = [type, "null"],)
end
