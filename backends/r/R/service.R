#' The model in service: fetched, checked, loaded. Stops with a `chips_start_error`.
#'
#' @return An environment with `artifact`, `manifest`, `model`, and `facts`, which [rehearse()] finds out.
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
  new_service(model, artifact$manifest, artifact)
}

new_service <- function(model, manifest, artifact = NULL) {
  list2env(list(artifact = artifact, manifest = manifest, model = model, facts = list(),
                plan = reading_plan(manifest$signature$inputs), types = datatype_plan()))
}

#' The rows of a request, its parameters, and on infer its id and the outputs it asks for.
read_scoring <- function(service, kind, body) {
  read <- if (has_compiled() && !is.null(service$plan)) read_compiled(kind, body, service$plan, service$types)
  if (is.null(read)) {
    read_slowly <- if (kind == "infer") read_tensors else read_instances
    read <- read_slowly(parse_body(body), service$manifest$signature$inputs)
  }
  read
}

#' Answer one request for predictions, all of it: parse, check, predict, write.
#'
#' @param job "predict" (the native form) or "infer" (the Open Inference Protocol), and after a blank what the request
#'   says of the length of its JSON part.
#' @param body The bytes of the request.
#' @return A list of `json`, and with tensors in binary form of `json_bytes`: how many bytes of it are JSON; or of a
#'   `problem` and its `stack`; and of the `timing` in milliseconds.
answer_scoring <- function(service, config, job, body) {
  kind <- sub(" .*", "", job)
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
      scoring <- if (kind == job) read_scoring(service, kind, body) else
        read_binary(service, split_body(body, substring(job, nchar(kind) + 2L)))
      check_scoring(scoring, service)
      finish("predict")
      answer <- score(service, scoring)
      finish("render")
      classes <- if (isTRUE(scoring$parameters$probabilities) && isTRUE(scoring$parameters$classes)) {
        service$facts$classes
      }
      if (kind == "infer") render_infer(answer, scoring, config, signature, classes) else
        render_predict(answer, config, signature, classes)
    }, error = function(e) if (!inherits(e, "chips_problem")) stack <<- describe_error(e, sys.calls())),
    error = function(e) if (inherits(e, "chips_problem")) e else prediction_failed()
  )
  finish("")
  if (is.character(json)) {
    return(list(json = json, timing = timing))
  }
  if (!inherits(json, "condition")) {
    return(c(json, list(timing = timing)))
  }
  if (kind == "infer" && !is.null(json$in_tensors)) json$message <- json$in_tensors
  list(problem = json, stack = if (is.null(json$stack)) stack else json$stack, timing = timing)
}

read_binary <- function(service, parts) {
  read_tensors(parse_body(parts$head), service$manifest$signature$inputs, parts$behind)
}

check_scoring <- function(scoring, service) {
  check_parameters(scoring$parameters, service$facts$accepts)
  if (is.null(scoring$picked)) {
    return(invisible())
  }
  outputs <- vapply(service$manifest$signature$outputs, `[[`, "", "name")
  unknown <- if (length(outputs)) setdiff(scoring$picked, outputs)
  if (length(unknown)) {
    stop_invalid(sprintf("there is no output %s; the model has %s", vapply(unknown, shown, ""), toString(outputs)))
  }
}

#' Predict, and see that each row has its prediction. What fails is the caller's fault or the model's: see
#' [find_fault()].
#'
#' @return As [as_answer()] does.
score <- function(service, scoring) {
  outputs <- service$manifest$signature$outputs
  if (scoring$count == 0L) {
    return(empty_answer(outputs))
  }
  stack <- NULL
  tryCatch(
    withCallingHandlers(
      predict_once(service, scoring$rows, scoring$parameters, scoring$count),
      error = function(e) if (is.null(stack)) stack <<- describe_error(e, sys.calls())
    ),
    error = function(e) if (inherits(e, "chips_problem")) stop(e) else find_fault(service, scoring, stack)
  )
}

predict_once <- function(service, rows, parameters, count) {
  if (!isTRUE(parameters$probabilities)) {
    return(as_answer(predict_rows(service$model, rows, parameters), count, service$manifest$signature$outputs))
  }
  as_probabilities(predict_rows(service$model, rows, parameters), count, service$facts$classes)
}

#' A matrix with a row for each row and a column for each class; `classes` says in which order, once it is known.
as_probabilities <- function(value, count, classes = colnames(value)) {
  if (!is.matrix(value) || !is.numeric(value) || nrow(value) != count || is.null(colnames(value)) ||
        !setequal(colnames(value), classes)) {
    stop_answer("no matrix of %s rows with a column for each class by its label", count)
  }
  structure(list(prediction = unname(value[, classes, drop = FALSE])), several = FALSE)
}

render_predict <- function(answer, config, signature, classes = NULL) {
  paste0('{"predictions":', render_predictions(answer, signature$outputs), ',"model":', json_string(config$model),
         ',"version":', json_string(config$version),
         if (!is.null(classes)) paste0(',"classes":', json_array(json_string(classes))), "}")
}

render_infer <- function(answer, scoring, config, signature, classes = NULL) {
  outputs <- signature$outputs
  if (isTRUE(scoring$parameters$probabilities)) {
    # Of the declared output the probabilities have the name, and not the datatype.
    if (length(outputs)) names(answer) <- outputs[[1]]$name
    outputs <- list()
  }
  picked <- if (is.null(scoring$picked)) names(answer) else scoring$picked
  unknown <- setdiff(picked, names(answer))
  if (length(unknown)) stop_invalid(sprintf("there is no output %s", vapply(unknown, shown, "")))
  is_binary <- vapply(picked, function(name) {
    form <- scoring$binary[[name]]
    if (is.null(form)) scoring$binary_data_output else form
  }, NA)
  rendered <- render_outputs(answer, outputs, picked, is_binary)
  json <- paste0(
    '{"model_name":', json_string(config$model), ',"model_version":', json_string(config$version), ',"outputs":',
    rendered$json, if (!is.null(classes)) paste0(',"parameters":{"classes":', json_array(json_string(classes)), "}"),
    if (!is.null(scoring$id)) paste0(',"id":', json_string(scoring$id)), "}"
  )
  if (is.null(rendered$bytes)) {
    return(json)
  }
  head <- charToRaw(json)
  list(json = c(head, rendered$bytes), json_bytes = length(head))
}

# The message, and the functions on the way there; of calls only their names, since arguments are payload.
describe_error <- function(error, calls) {
  names <- vapply(calls, function(call) substr(deparse(call[[1]], nlines = 1L)[[1]], 1L, 60L), "")
  ours <- max(0L, match("score", names, nomatch = 0L))
  paste(c(conditionMessage(error), paste0("  in ", utils::tail(utils::tail(names, -ours), 20L))), collapse = "\n")
}

clock_ms <- function() as.numeric(Sys.time()) * 1000
