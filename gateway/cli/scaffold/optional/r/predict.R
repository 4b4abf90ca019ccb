# Code around the model @NAME@. It is read after the library's own predict.R and replaces what has the same name there:
# load_model(folder, manifest), own_parameters(model) and predict_rows(model, rows, parameters).

#' Predict each row of `rows`, a data frame with the inputs of the signature; one prediction for each, in their order.
#'
#' as_levels(), as_day() and as_time() answer 422 to a caller whose value the model cannot take.
predict_rows <- function(model, rows, parameters) {
  rows <- with_levels(rows, model)
  if (isTRUE(parameters$probabilities)) {
    return(class_probabilities(model, rows))
  }
  model_answer(model, rows, checked_type(model, parameters$type))
}
