# Whose fault a failed prediction is. What a library says decides nothing: there are too many of them.

#' Stop with the problem that a failed prediction is: the caller's where one of the rows fails alone though the good row
#' still predicts, otherwise the model's.
#'
#' @param stack The model's own error, for the log.
find_fault <- function(service, scoring, stack) {
  failed <- prediction_failed()
  failed$stack <- stack
  good <- service$facts$good
  parameters <- scoring$parameters
  works <- function(rows, parameters) predicts(service, rows, parameters)
  if (is.null(good) || !works(good$rows, good$parameters) || works(scoring$rows, parameters)) {
    stop(failed)
  }
  if (!works(good$rows, parameters)) {
    refuse(stack, sprintf("parameters: the model cannot predict with %s", toString(names(parameters))))
  }
  at <- first_failing(seq_len(scoring$count), function(rows) works(take_rows(scoring$rows, rows), parameters))
  if (is.null(at)) {
    stop(failed)
  }
  row <- take_rows(scoring$rows, at)
  culprits <- failing_fields(row, good$rows, function(rows) works(rows, parameters))
  if (length(culprits) == 0) {
    refuse(stack, sprintf("instances[%d]: the model cannot take this row", at - 1L),
           sprintf("row %d: the model cannot take this row", at - 1L))
  }
  values <- vapply(culprits, function(name) shown_cell(row[[name]]), "")
  refuse(stack, sprintf("instances[%d].%s: the model cannot take %s", at - 1L, culprits, values),
         sprintf("%s[%d]: the model cannot take %s", culprits, at - 1L, values))
}

refuse <- function(stack, texts, in_tensors = texts) {
  problem <- tryCatch(stop_invalid(texts), chips_problem = identity)
  problem$in_tensors <- tryCatch(stop_invalid(in_tensors), chips_problem = conditionMessage)
  problem$stack <- stack
  stop(problem)
}

predicts <- function(service, rows, parameters) {
  count <- if (is.data.frame(rows)) nrow(rows) else length(rows)
  tryCatch({
    predict_once(service, rows, parameters, count)
    TRUE
  }, error = function(e) FALSE)
}

#' Some of the rows, numbered again: some predict() methods go by the row names.
take_rows <- function(rows, at) {
  if (!is.data.frame(rows)) {
    return(rows[at])
  }
  taken <- lapply(rows, `[`, at)
  structure(taken, row.names = .set_row_names(length(at)), class = "data.frame")
}

# The first of the rows that fails alone, where all of them fail together; NULL where none does.
first_failing <- function(rows, works) {
  if (length(rows) == 1L) {
    return(rows)
  }
  first <- seq_len(length(rows) %/% 2L)
  for (half in list(rows[first], rows[-first])) {
    if (!works(half)) {
      return(first_failing(half, works))
    }
  }
  NULL
}

# The fields whose value the good row cannot have either.
failing_fields <- function(row, good, works) {
  if (!is.data.frame(row)) {
    return(character())
  }
  Filter(function(name) {
    good[[name]] <- row[[name]]
    !works(good)
  }, names(row))
}

shown_cell <- function(cell) {
  if (is.factor(cell)) cell <- as.character(cell)
  if (is.list(cell)) "this value" else if (is.na(cell)) "null" else shown(cell)
}
