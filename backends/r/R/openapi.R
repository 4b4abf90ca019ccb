#' The backend's OpenAPI 3.1 document, with the model's real fields taken from its signature.
describe_api <- function(config, manifest) {
  inputs <- manifest$signature$inputs
  outputs <- manifest$signature$outputs
  model <- paste0("/v2/models/", config$model)
  any_object <- list(type = "object")
  text <- list(type = "string")
  paths <- list(
    "/predict" = api_post("Predict", "Request", "Response"),
    infer = api_post("Infer", "InferRequest", "InferResponse"),
    metadata = api_get("Metadata", any_object),
    ready = api_get("Readiness of the model", any_object),
    "/v2/health/live" = api_get("Liveness", any_object),
    "/v2/health/ready" = api_get("Readiness", any_object)
  )
  names(paths)[2:4] <- paste0(model, c("/infer", "", "/ready"))
  json_value(list(
    openapi = "3.1.0",
    info = list(title = config$model, version = config$version),
    paths = paths,
    components = list(schemas = list(
      Instance = api_instance(inputs),
      Request = c(api_object(
        list(instances = list(type = "array", items = api_ref("Instance")), parameters = any_object), "instances"
      ), if (length(manifest$samples)) list(examples = list(manifest$samples[[1]]$request))),
      Response = api_object(list(
        predictions = list(type = "array", items = if (length(outputs)) api_value(outputs[[1]], 2L) else empty_object),
        model = list(const = config$model), version = list(const = config$version)
      )),
      InferRequest = api_object(list(
        id = text, inputs = list(type = "array", items = api_ref("Tensor"), minItems = 1L)
      ), "inputs"),
      InferResponse = api_object(list(
        model_name = text, model_version = text, id = text, outputs = list(type = "array", items = api_ref("Tensor"))
      ), c("model_name", "outputs")),
      Tensor = api_object(list(
        name = text, shape = list(type = "array", items = list(type = "integer", minimum = 0L)), datatype = text,
        data = list(type = "array")
      )),
      Problem = api_object(list(
        type = text, title = text, status = list(type = "integer"), code = text, detail = text, request_id = text,
        error = text
      ), c("type", "title", "status", "code", "detail", "request_id"))
    ))
  ))
}

empty_object <- structure(list(), names = character())

api_ref <- function(name) stats::setNames(list(paste0("#/components/schemas/", name)), "$ref")

api_object <- function(properties, required = names(properties)) {
  list(type = "object", required = I(required), properties = properties)
}

api_json <- function(description, schema) {
  list(description = description, content = list("application/json" = list(schema = schema)))
}

api_problem <- function() {
  list(description = "A problem (RFC 9457)",
       content = list("application/problem+json" = list(schema = api_ref("Problem"))))
}

api_post <- function(summary, request, response) {
  errors <- c("400", "413", "415", "422", "500", "503", "504")
  list(post = list(
    summary = summary, operationId = tolower(summary),
    requestBody = list(required = TRUE, content = list("application/json" = list(schema = api_ref(request)))),
    responses = c(list("200" = api_json("Predictions", api_ref(response))),
                  stats::setNames(lapply(errors, function(status) api_problem()), errors))
  ))
}

api_get <- function(summary, schema) {
  list(get = list(summary = summary, responses = list("200" = api_json(summary, schema), default = api_problem())))
}

api_instance <- function(inputs) {
  if (length(inputs) == 0) {
    return(empty_object)
  }
  values <- lapply(inputs, api_value, 2L)
  names <- vapply(inputs, `[[`, "", "name")
  list(oneOf = list(
    c(api_object(stats::setNames(values, names)), list(additionalProperties = FALSE)),
    list(type = "array", prefixItems = values, items = FALSE, minItems = length(inputs))
  ))
}

api_value <- function(tensor, dimension) {
  if (dimension <= length(tensor$shape)) {
    size <- tensor$shape[[dimension]]
    return(c(list(type = "array", items = api_value(tensor, dimension + 1L)),
             if (size >= 0) list(minItems = size, maxItems = size)))
  }
  kind <- switch(tensor$datatype, BOOL = "boolean", BYTES = "string",
                 if (startsWith(tensor$datatype, "FP")) "number" else "integer")
  list(type = c(kind, "null"))
}
