# The file to edit: how a model is loaded, and how it predicts. Nothing here knows about the web.
#
# `load_model` is called once, after every file of the artifact has been checked against its SHA-256. `predict_rows` is
# a pure function: rows in, predictions out, one for each row, in the same order.

#' Load the model from the artifact's files in `folder`.
load_model <- function(folder, manifest) {
  if (manifest$format != "rds") {
    stop(sprintf("this backend loads \"rds\", not \"%s\"; teach it in predict.R", manifest$format))
  }
  model <- readRDS(file.path(folder, main_file(manifest, ".rds")))
  # The model's class brings its predict() method with its package.
  if (inherits(model, "ranger")) loadNamespace("ranger")
  model
}

#' Predict each row.
#'
#' @param rows A data frame with the inputs of the signature in their order: FP as double, INT as integer (from 2^31 on
#'   as double), BOOL as logical, BYTES as character; what is missing is NA.
#' @param parameters What the caller sent as "parameters": a list, or an empty one.
#' @return A vector, factor, matrix or data frame with one prediction for each row. A value that the model does not
#'   know is the caller's mistake and not the model's: `as_levels()`, `as_day()` and `as_time()` answer it with 422.
predict_rows <- function(model, rows, parameters) {
  if (inherits(model, "ranger")) {
    known <- model$forest$covariate.levels
    for (name in names(Filter(Negate(is.null), known))) rows <- as_levels(rows, name, known[[name]])
    # One thread: the backend runs as many predictions at once as it has processors.
    return(predict(model, data = rows, num.threads = 1L)$predictions)
  }
  for (name in names(model$xlevels)) rows <- as_levels(rows, name, model$xlevels[[name]])
  if (inherits(model, "glm")) {
    type <- if (identical(parameters$type, "link")) "link" else "response"
    return(stats::predict.glm(model, rows, type = type))
  }
  stats::predict(model, rows)
}
