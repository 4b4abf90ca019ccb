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
  attach_packages(model, names(manifest$runtime))
  model
}

#' The names of the parameters that callers may send, next to `probabilities` and `classes` for classifiers.
own_parameters <- function(model) if (length(types_of(model))) "type"

#' Predict each row.
#'
#' @param rows A data frame with the inputs of the signature in their order: FP as double, INT as integer (from 2^31 on
#'   as double), BOOL as logical, BYTES as character, or as factor where the signature has categories; what is missing
#'   is NA.
#' @param parameters What the caller sent as "parameters": a list, or an empty one. With `probabilities = TRUE` the
#'   answer is a matrix with a column for each class, named by its label; NULL where the model has no probabilities.
#' @return A vector, factor, matrix or data frame with one prediction for each row. A value that the model does not
#'   know is the caller's mistake and not the model's: `as_levels()`, `as_day()` and `as_time()` answer it with 422.
predict_rows <- function(model, rows, parameters) {
  rows <- with_levels(rows, model)
  if (isTRUE(parameters$probabilities)) {
    return(class_probabilities(model, rows))
  }
  model_answer(model, rows, checked_type(model, parameters$type))
}
