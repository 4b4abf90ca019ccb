# Open Inference Protocol, version 2 (KServe): tensors in, tensors out.

deepest_tensor <- 8L
infer_fields <- c("id", "parameters", "inputs", "outputs", "model_name", "model_version")
# Of the request or an output: what it says to other servers, the signature decides here.
ignored_parameters <- "content_type"

#' Read an inference request: a tensor for each input, or one tensor [rows, inputs] for all of them.
#'
#' @param behind The bytes behind the JSON; NULL where all of the body is JSON.
#' @return As [read_instances()] does, the `id`, and what [read_asked()] finds.
read_tensors <- function(body, inputs, behind = NULL) {
  value <- body$value
  if (!is_object(value)) {
    stop_invalid(sprintf("expected an object with \"inputs\", got %s", kind_of(value)))
  }
  id <- checked_id(member(value, "id"))
  given <- member(value, "inputs")
  if (!is_array(given) || length(given) == 0) {
    stop_invalid("inputs must be an array with at least one tensor")
  }
  check_fields(value, infer_fields)
  more <- c(list(id = id), read_asked(read_parameters(value), member(value, "outputs")))
  tensors <- Map(read_tensor, with_bytes(given, behind), sprintf("inputs[%d]", seq_along(given) - 1L))
  if (length(inputs) == 0) {
    rows <- tensor_rows(tensors[[1]])
    return(c(list(rows = rows, count = length(rows)), more))
  }
  names <- vapply(inputs, `[[`, "", "name")
  columns <- if (length(tensors) == 1L && length(inputs) > 1L && !tensors[[1]]$name %in% names) {
    matrix_columns(tensors[[1]], length(inputs))
  } else {
    tensor_columns(tensors, names)
  }
  count <- length(columns[[1]])
  problems <- character()
  for (column in seq_along(inputs)) {
    wrong <- check_cells(columns[[column]], inputs[[column]], sprintf("%s[%d]", names[[column]], seq_len(count) - 1L))
    problems <- c(problems, wrong$text)
  }
  if (length(problems)) stop_invalid(problems)
  c(list(rows = as_frame(columns, count, inputs), count = count), more)
}

checked_id <- function(id) {
  if (!is.null(id) && !is.character(id)) {
    stop_invalid(paste("id must be a string, got", kind_of(id)))
  }
  id
}

#' What a caller asks for: the `parameters` for the model, the outputs `picked` by name (NULL for all), and which are
#' wanted in `binary` form, by name; `binary_data_output` says it of those that say nothing.
read_asked <- function(parameters, outputs) {
  default <- read_flag(parameters, "binary_data_output", "parameters")
  parameters <- parameters[setdiff(names(parameters), c(ignored_parameters, "binary_data_output"))]
  asked <- list(parameters = parameters, picked = NULL, binary = list(), binary_data_output = isTRUE(default))
  if (is.null(outputs) || is_array(outputs) && length(outputs) == 0L) {
    return(asked)
  }
  named <- is_array(outputs) && all(vapply(outputs, function(output) {
    is_object(output) && is.character(member(output, "name"))
  }, NA))
  if (!named) {
    stop_invalid("outputs must be an array of objects with a name")
  }
  asked$picked <- vapply(outputs, member, "", "name")
  if (anyDuplicated(asked$picked)) stop_invalid("an output is asked for twice")
  forms <- Map(output_form, outputs, sprintf("outputs[%d].parameters", seq_along(outputs) - 1L))
  asked$binary <- Filter(Negate(is.null), stats::setNames(forms, asked$picked))
  asked
}

output_form <- function(output, where) {
  parameters <- member(output, "parameters")
  if (is.null(parameters)) {
    return(NULL)
  }
  if (!is_object(parameters)) {
    stop_invalid(sprintf("%s must be an object, got %s", where, kind_of(parameters)))
  }
  unknown <- setdiff(names(parameters), c(ignored_parameters, "binary_data"))
  if (length(unknown)) {
    stop_invalid(sprintf("%s.%s is not known: an output has binary_data", where, unknown))
  }
  read_flag(parameters, "binary_data", where)
}

read_flag <- function(parameters, name, where) {
  flag <- member(parameters, name)
  if (!is.null(flag) && !is.logical(flag)) {
    stop_invalid(sprintf("%s.%s: expected true or false, got %s", where, name, shown(flag)))
  }
  flag
}

read_tensor <- function(given, where) {
  if (!is_object(given)) {
    stop_invalid(sprintf("%s: expected an object, got %s", where, kind_of(given)))
  }
  name <- member(given, "name")
  if (!is.character(name)) {
    stop_invalid(paste0(where, ".name must be a string"))
  }
  datatype <- member(given, "datatype")
  if (!is.character(datatype) || !datatype %in% datatypes) {
    stop_invalid(sprintf("%s.datatype: %s is not a datatype", where, shown(datatype)))
  }
  shape <- member(given, "shape")
  if (!is_array(shape) || length(shape) == 0 || !all(vapply(shape, function(n) is.integer(n) && n >= 0L, NA))) {
    stop_invalid(paste0(where, ".shape must be an array of sizes"))
  }
  shape <- as.double(unlist(shape))
  bytes <- given[["bytes"]]
  if (inherits(bytes, "AsIs")) {
    cells <- unpack(unclass(bytes), datatype, prod(shape), where)
    check_tensor(cells, datatype, where)
    return(list(name = name, shape = shape, cells = cells))
  }
  data <- member(given, "data")
  if (!is_array(data)) {
    stop_invalid(paste0(where, ".data must be an array, or parameters.binary_data_size the number of its bytes"))
  }
  cells <- flatten(data)
  if (length(cells) != prod(shape)) {
    stop_invalid(sprintf("%s: shape [%s] means %.0f values, data has %d", where, toString(shape), prod(shape),
                         length(cells)))
  }
  check_tensor(cells, datatype, where)
  list(name = name, shape = shape, cells = cells)
}

check_tensor <- function(cells, datatype, where) {
  input <- list(datatype = datatype, shape = -1)
  wrong <- check_cells(cells, input, sprintf("%s.data[%d]", where, seq_along(cells) - 1L))$text
  if (length(wrong)) stop_invalid(wrong)
}

# The protocol lets row-major data be nested or flat.
flatten <- function(data) {
  for (level in seq_len(deepest_tensor)) {
    nested <- vapply(data, is_array, NA)
    if (!any(nested)) break
    data <- if (all(nested)) unlist(data, recursive = FALSE, use.names = FALSE) else
      do.call(c, Map(function(cell, is_nested) if (is_nested) cell else list(cell), data, nested))
    if (is.null(data)) data <- list()
    if (!is.list(data)) data <- as.list(data)
  }
  unname(data)
}

#' A tensor cut along its first dimension.
tensor_rows <- function(tensor) {
  count <- tensor$shape[[1]]
  width <- prod(tensor$shape[-1])
  if (width == 0 || count == 0) {
    return(list())
  }
  cells <- as_cells(tensor$cells)
  lapply(seq_len(count), function(row) cells[(row - 1) * width + seq_len(width)])
}

matrix_columns <- function(tensor, width) {
  if (length(tensor$shape) != 2L || tensor$shape[[2]] != width) {
    stop_invalid(sprintf("%s: expected shape [rows, %d], got [%s]", tensor$name, width, toString(tensor$shape)))
  }
  starts <- (seq_len(tensor$shape[[1]]) - 1L) * width
  lapply(seq_len(width), function(column) tensor$cells[starts + column])
}

tensor_columns <- function(tensors, names) {
  given <- vapply(tensors, `[[`, "", "name")
  unknown <- setdiff(given, names)
  missing <- setdiff(names, given)
  problems <- c(
    if (length(unknown)) paste("there is no input", vapply(unknown, shown, "")),
    if (length(missing)) sprintf("input %s is missing", missing),
    if (anyDuplicated(given)) "an input is there twice"
  )
  if (length(problems)) stop_invalid(problems)
  tensors <- tensors[match(names, given)]
  counts <- vapply(tensors, function(tensor) tensor$shape[[1]], 0)
  if (length(unique(counts)) > 1L) {
    stop_invalid(paste("the inputs differ in their number of rows:", toString(sprintf("%s %.0f", names, counts))))
  }
  lapply(tensors, function(tensor) if (prod(tensor$shape[-1]) == 1) tensor$cells else tensor_rows(tensor))
}

output_datatype <- function(data, declared) {
  actual <- own_datatype(data)
  if (is.null(declared)) {
    return(actual)
  }
  wanted <- declared$datatype
  if (length(data) == 0) {
    return(wanted)
  }
  number <- actual %in% c("FP64", "INT64")
  fits <- if (wanted %in% names(integer_limits)) {
    limits <- integer_limits[[wanted]]
    number && all(is.finite(data)) && all(data == trunc(data) & data >= limits[[1]] & data <= limits[[2]])
  } else if (wanted %in% names(float_limits)) {
    number && all(abs(data[is.finite(data)]) <= float_limits[[wanted]])
  } else {
    wanted == actual
  }
  if (fits) wanted else actual
}

own_datatype <- function(data) {
  if (inherits(data, "integer64")) {
    "INT64"
  } else if (is.logical(data)) {
    if (all(is.na(data))) "FP64" else "BOOL"
  } else if (is.object(data) || is.character(data)) {
    "BYTES"
  } else if (is.integer(data)) {
    "INT64"
  } else if (is.double(data)) {
    "FP64"
  } else {
    "BYTES"
  }
}
