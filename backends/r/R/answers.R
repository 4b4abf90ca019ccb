# What a model answers, in the contract's one form: its outputs, each with a value for each row.

#' An answer with rows first, as a list with one part for each output: a vector, a matrix, or a list of a value a row.
#'
#' Anything else is an error: a list of parts that are not the outputs, another number of rows, a matrix on its side.
#'
#' @param value What predict_rows() returned.
#' @param count How many rows were asked for.
#' @param outputs The signature's outputs.
#' @return The named parts; where the attribute `several` is TRUE, a row is an object by their names.
as_answer <- function(value, count, outputs = list()) {
  names <- vapply(outputs, `[[`, "", "name")
  parts <- parts_of(plain_value(value), outputs, names)
  if (length(names) > 1L && length(parts) == 1L) {
    stop_answer("one value for each row, and the signature has %s outputs", length(names))
  }
  parts <- lapply(parts, plain_value)
  for (part in parts) check_rows(part, count)
  several <- length(parts) > 1L
  if (is.null(names(parts)) || !several) names(parts) <- if (length(names)) names else "prediction"
  structure(parts, several = several)
}

parts_of <- function(value, outputs, names) {
  if (is.data.frame(value)) {
    table_parts(value, names)
  } else if (is.list(value) && !is.null(names(value))) {
    named_parts(value, names)
  } else if (is.matrix(value)) {
    matrix_parts(value, outputs, names)
  } else if (is.list(value) || is.atomic(value) && !is.null(value)) {
    list(unname(value))
  } else {
    stop_answer("an object of class %s: turn it into a vector, a matrix or a data frame in predict.R", class(value))
  }
}

stop_answer <- function(text, ...) {
  message <- paste("predict_rows() returned", do.call(sprintf, c(text, lapply(list(...), toString))))
  stop(structure(class = c("chips_answer_error", "error", "condition"), list(message = message, call = NULL)))
}

# Without the classes that only change how R prints. Of the others, some change what the numbers mean.
plain_value <- function(value) {
  if (isS4(value) && inherits(value, "Matrix")) {
    return(as.matrix(value))
  }
  if (inherits(value, "POSIXlt")) {
    return(as.POSIXct(value))
  }
  if (inherits(value, "difftime")) {
    return(as.double(value, units = "secs"))
  }
  if (is.array(value)) value <- flat_array(value)
  if (inherits(value, c("ts", "noquote", "table")) || is.list(value) && inherits(value, "AsIs")) {
    value <- unclass(value)
    attr(value, "tsp") <- NULL
  }
  value
}

# A vector or a matrix: dimensions of one value are left out, but for the rows.
flat_array <- function(value) {
  if (length(dim(value)) > 2L) {
    kept <- c(TRUE, dim(value)[-1] > 1L)
    if (sum(kept) > 2L) stop_answer("an array of %s dimensions", length(dim(value)))
    value <- array(value, dim(value)[kept], dimnames(value)[kept])
  }
  if (length(dim(value)) == 1L) as.vector(value) else value
}

table_parts <- function(table, names) {
  parts <- table
  if (length(parts) == 1L && length(names) <= 1L) {
    return(unname(as.list(parts)))
  }
  named_parts(parts, names)
}

named_parts <- function(parts, names) {
  if (is.data.frame(parts) && length(names) == 0L) {
    return(as.list(parts))
  }
  if (!setequal(names(parts), names)) {
    declared <- if (length(names)) sprintf("the signature's outputs are %s", toString(names)) else
      "the signature has no outputs"
    stop_answer("the parts %s, but %s: say in predict.R which part is the prediction, or declare these outputs",
                names(parts), declared)
  }
  parts[names]
}

matrix_parts <- function(value, outputs, names) {
  columns <- function() lapply(seq_len(ncol(value)), function(column) value[, column])
  if (length(names) > 1L) {
    if (ncol(value) != length(names)) {
      stop_answer("a matrix with %s columns, but the signature has %s outputs", ncol(value), length(names))
    }
    by_name <- !is.null(colnames(value)) && setequal(colnames(value), names)
    if (by_name) value <- value[, names, drop = FALSE]
    return(stats::setNames(columns(), names))
  }
  width <- if (length(outputs)) outputs[[1]]$shape[-1]
  if (ncol(value) == 1L && length(width) == 0L) {
    return(lapply(columns(), unname))
  }
  if (length(outputs) && (length(width) != 1L || !width %in% c(-1, ncol(value)))) {
    stop_answer("%s values for each row, but the signature's output %s has the shape [%s]", ncol(value), names,
                toString(outputs[[1]]$shape))
  }
  list(unname(value))
}

check_rows <- function(part, count) {
  rows <- if (is.matrix(part)) nrow(part) else length(part)
  if (rows != count) stop_answer("%s predictions for %s rows", rows, count)
  known <- c("factor", "ordered", "Date", "POSIXct", "POSIXt", "AsIs", "integer64")
  strange <- setdiff(attr(part, "class", exact = TRUE), known)
  if (length(strange)) {
    stop_answer("values of class %s: turn them into numbers or texts in predict.R", strange)
  }
  if (is.complex(part) || is.raw(part) || is.function(part)) stop_answer("values of type %s", typeof(part))
}

# -- as JSON

#' The answer to no rows.
empty_answer <- function(outputs) {
  names <- vapply(outputs, `[[`, "", "name")
  parts <- rep(list(double()), max(1L, length(names)))
  structure(stats::setNames(parts, if (length(names)) names else "prediction"), several = length(names) > 1L)
}

#' The answer of `/predict`: an array with an entry for each row.
render_predictions <- function(answer, outputs) {
  whole <- declared_whole(outputs, names(answer))
  if (!attr(answer, "several")) {
    return(write_array(answer[[1]], whole[[1]]))
  }
  cells <- Map(row_texts, answer, whole)
  fields <- Map(function(name, texts) paste0(json_string(name), ":", texts, recycle0 = TRUE), names(answer), cells)
  json_array(paste0("{", do.call(paste, c(unname(fields), sep = ",")), "}", recycle0 = TRUE))
}

# An array with an entry for each row.
write_array <- function(part, whole) {
  if (is.factor(part)) part <- as.character(part)
  text <- if (has_compiled() && is.atomic(part) && !is.object(part)) .Call(compiled$write_array, part, whole)
  if (is.null(text)) json_array(row_texts(part, whole)) else text
}

# One JSON text for each row.
row_texts <- function(part, whole) {
  if (!is.matrix(part)) {
    return(json_values(part, whole))
  }
  cells <- lapply(seq_len(ncol(part)), function(column) json_values(part[, column], whole))
  paste0("[", do.call(paste, c(cells, sep = ",")), "]", recycle0 = TRUE)
}

#' The tensors of an infer response: all, or those that the request picked by name.
#'
#' @param is_binary Which of them are wanted in binary form.
#' @return A list of the `json`, and the `bytes` behind it; NULL where none is in that form.
render_outputs <- function(answer, outputs, picked = names(answer), is_binary = logical(length(picked))) {
  declared <- stats::setNames(outputs, vapply(outputs, `[[`, "", "name"))
  render <- function(name, binary) render_tensor(name, answer[[name]], declared[[name]], binary)
  tensors <- Map(render, picked, is_binary)
  bytes <- lapply(tensors, `[[`, "bytes")
  list(json = json_array(vapply(tensors, `[[`, "", "json")), bytes = do.call(c, unname(bytes)))
}

render_tensor <- function(name, data, declared, binary = FALSE) {
  if (is.list(data)) data <- as_regular(data)
  shape <- if (is.matrix(data)) dim(data) else length(data)
  if (is.matrix(data)) data <- c(t(data))
  datatype <- output_datatype(data, declared)
  bytes <- if (binary) pack(data, datatype)
  content <- if (is.null(bytes)) paste0('"data":', write_array(data, datatype %in% names(integer_limits))) else
    sprintf('"parameters":{"binary_data_size":%d}', length(bytes))
  json <- paste0('{"name":', json_string(name), ',"shape":', json_array(shape), ',"datatype":"', datatype, '",',
                 content, "}")
  list(json = json, bytes = bytes)
}

# Rows of one length are a matrix; others have no form as a tensor, and become texts of JSON.
as_regular <- function(rows) {
  regular <- all(vapply(rows, function(row) is.atomic(row) && !is.null(row), NA)) && length(unique(lengths(rows))) == 1L
  if (!regular) {
    return(vapply(rows, json_value, ""))
  }
  values <- unlist(rows, use.names = FALSE)
  if (lengths(rows)[[1]] == 1L) values else matrix(values, nrow = length(rows), byrow = TRUE)
}

declared_whole <- function(outputs, names) {
  declared <- stats::setNames(vapply(outputs, `[[`, "", "datatype"), vapply(outputs, `[[`, "", "name"))
  unname(declared[names] %in% names(integer_limits))
}
