#' The model in service: fetched, checked, loaded. Stops with a `chips_start_error`.
#'
#' @return A list of `artifact`, `manifest` and `model`.
load_service <- function(config, log) {
  artifact <- obtain(config$artifact, config$cache_dir, config[c("model", "version", "artifact_digest")], log)
  log$info(sprintf("the artifact %s is complete and checked", artifact$address), artifact_digest = artifact$digest)
  model <- tryCatch(load_model(artifact$folder, artifact$manifest), error = function(e) {
    runtime <- artifact$manifest$runtime
    made_with <- if (length(runtime)) toString(paste(names(runtime), unlist(runtime))) else
      "versions that its manifest does not name"
    stop_start(sprintf("%s could not be loaded: %s. It was made with %s: are these installed?", artifact$address,
                       conditionMessage(e), made_with), "software")
  })
  list(artifact = artifact, manifest = artifact$manifest, model = model)
}

#' Answer one request for predictions, all of it: parse, check, predict, write.
#'
#' @param kind "predict" (the native form) or "infer" (the Open Inference Protocol).
#' @param body The bytes of the request.
#' @return A list of `json`, or of a `problem` and its `stack`; and of the `timing` in milliseconds.
answer_scoring <- function(service, config, kind, body) {
  timing <- c(parse = 0, predict = 0, render = 0)
  stage <- "parse"
  began <- clock_ms()
  finish <- function(next_stage) {
    timing[[stage]] <<- clock_ms() - began
    stage <<- next_stage
    began <<- clock_ms()
  }
  stack <- NULL
  json <- tryCatch(
    withCallingHandlers({
      signature <- service$manifest$signature
      read <- if (kind == "infer") read_tensors else read_instances
      scoring <- read(parse_body(body), signature$inputs)
      finish("predict")
      predictions <- score(service$model, scoring)
      finish("render")
      if (kind == "infer") render_infer(predictions, scoring, config, signature) else
        render_predict(predictions, config, signature)
    }, error = function(e) if (!inherits(e, "chips_problem")) stack <<- describe_error(e, sys.calls())),
    error = function(e) if (inherits(e, "chips_problem")) e else prediction_failed()
  )
  finish("")
  if (is.character(json)) list(json = json, timing = timing) else list(problem = json, stack = stack, timing = timing)
}

#' Predict, and see that each row has its prediction.
score <- function(model, scoring) {
  if (scoring$count == 0L) {
    return(double())
  }
  predictions <- predict_rows(model, scoring$rows, scoring$parameters)
  if (length(dim(predictions)) == 1L) predictions <- as.vector(predictions)
  rows <- if (is.null(dim(predictions))) length(predictions) else nrow(predictions)
  if (rows != scoring$count) {
    stop(sprintf("predict_rows() returned %d predictions for %d rows", rows, scoring$count), call. = FALSE)
  }
  predictions
}

render_predict <- function(predictions, config, signature) {
  paste0('{"predictions":', render_predictions(predictions, signature$outputs), ',"model":',
         json_string(config$model), ',"version":', json_string(config$version), "}")
}

render_infer <- function(predictions, scoring, config, signature) {
  paste0('{"model_name":', json_string(config$model), ',"model_version":', json_string(config$version),
         ',"outputs":', render_outputs(predictions, signature$outputs),
         if (!is.null(scoring$id)) paste0(',"id":', json_string(scoring$id)), "}")
}

# The message, and the functions on the way there; of calls only their names, since arguments are payload.
describe_error <- function(error, calls) {
  names <- vapply(calls, function(call) substr(deparse(call[[1]], nlines = 1L)[[1]], 1L, 60L), "")
  ours <- max(0L, match("score", names, nomatch = 0L))
  paste(c(conditionMessage(error), paste0("  in ", utils::tail(utils::tail(names, -ours), 20L))), collapse = "\n")
}

#' Score the manifest's first sample, a few times: R compiles a function at its second call.
#'
#' Another answer than the published one means another environment, and stops the start.
warm_up <- function(service, config, times = 3L) {
  samples <- service$manifest$samples
  if (length(samples) == 0) {
    return(invisible())
  }
  sample <- samples[[1]]
  body <- charToRaw(json_value(sample$request))
  for (i in seq_len(times)) answer <- answer_scoring(service, config, "predict", body)
  tensors <- as_tensors(sample$request, service$manifest$signature$inputs)
  if (!is.null(tensors)) for (i in seq_len(times)) answer_scoring(service, config, "infer", charToRaw(tensors))
  if (!is.null(answer$problem)) {
    why <- if (is.null(answer$stack)) conditionMessage(answer$problem) else answer$stack
    stop_start(paste("the manifest's first sample could not be scored:", why), "data")
  }
  got <- jsonlite::parse_json(answer$json)$predictions
  published <- sample$response$predictions
  tolerance <- if (is.null(sample$tolerance)) 1e-6 else sample$tolerance
  if (!is_close(got, published, tolerance)) {
    stop_start(sprintf(paste(
      "the manifest's first sample came out differently from what was published (got %s, published %s):",
      "the packages here differ from those the model was made with"
    ), substr(json_value(got), 1L, 80L), substr(json_value(published), 1L, 80L)), "data")
  }
}

# A sample as the other protocol has it, so that this way is warm too; NULL where its instances are not objects.
as_tensors <- function(request, inputs) {
  instances <- request$instances
  if (length(inputs) == 0 || length(instances) == 0 || !all(vapply(instances, is_object, NA))) {
    return(NULL)
  }
  json_value(list(inputs = lapply(inputs, function(input) {
    list(name = input$name, shape = list(length(instances)), datatype = input$datatype,
         data = lapply(instances, function(instance) instance[[input$name]]))
  })))
}

#' Whether two JSON values are the same, numbers within `tolerance` (absolute, and relative to the larger one).
is_close <- function(got, wanted, tolerance) {
  if (is.numeric(got) && is.numeric(wanted)) {
    return(abs(got - wanted) <= tolerance * max(1, abs(got), abs(wanted)))
  }
  if (is.list(got) && is.list(wanted)) {
    if (is_object(got) && is_object(wanted)) {
      if (!setequal(names(got), names(wanted))) {
        return(FALSE)
      }
      wanted <- wanted[names(got)]
    }
    return(is_object(got) == is_object(wanted) && length(got) == length(wanted) &&
             all(vapply(seq_along(got), function(at) is_close(got[[at]], wanted[[at]], tolerance), NA)))
  }
  identical(got, wanted)
}

clock_ms <- function() as.numeric(Sys.time()) * 1000
