# From a caller's JSON to a data frame in the order of the signature. Every problem says where it is. The checks run by
# column, on plain vectors: a loop over cells would cost more than the prediction.

enough_problems <- 11L # ten are shown, one more says that there are more

integer_limits <- list(
  INT8 = c(-2^7, 2^7 - 1), INT16 = c(-2^15, 2^15 - 1), INT32 = c(1 - 2^31, 2^31 - 1), INT64 = c(1 - 2^53, 2^53 - 1),
  UINT8 = c(0, 2^8 - 1), UINT16 = c(0, 2^16 - 1), UINT32 = c(0, 2^32 - 1), UINT64 = c(0, 2^53 - 1)
)
float_limits <- c(FP16 = 65504, FP32 = 3.4028234663852886e38, FP64 = .Machine$double.xmax)
datatypes <- c(names(integer_limits), names(float_limits), "BOOL", "BYTES")

#' Read `{"instances": [...], "parameters": {...}}`: each instance an object by field name, or an array in signature
#' order.
#'
#' @param body As [parse_body()] returns.
#' @param inputs The signature's inputs. Without any, the rows are the instances as they are.
#' @return A list of `rows`, `count` and `parameters`.
read_instances <- function(body, inputs) {
  value <- body$value
  if (!is_object(value)) {
    stop_invalid(sprintf("expected an object with \"instances\", got %s", kind_of(value)))
  }
  check_fields(value, c("instances", "parameters"))
  instances <- member(value, "instances")
  parameters <- read_parameters(value)
  if (!is_array(instances)) {
    what <- if ("instances" %in% names(value)) paste("must be an array, got", kind_of(instances)) else "is missing"
    stop_invalid(paste("instances", what))
  }
  if (length(inputs) == 0) {
    return(list(rows = instances, count = length(instances), parameters = parameters))
  }
  columns <- instance_columns(instances, inputs)
  list(rows = as_frame(columns, length(instances), inputs), count = length(instances), parameters = parameters)
}

read_parameters <- function(value) {
  parameters <- member(value, "parameters")
  if (is.null(parameters)) {
    return(list())
  }
  if (!is_object(parameters)) {
    stop_invalid(paste("parameters must be an object, got", kind_of(parameters)))
  }
  Filter(Negate(is.null), parameters) # null is as if it were absent
}

# A parameter in the wrong place would be ignored without a word.
check_fields <- function(value, known) {
  unknown <- setdiff(names(value), known)
  if (length(unknown)) {
    stop_invalid(sprintf("there is no field %s here; a request has %s", vapply(unknown, shown, ""), toString(known)))
  }
}

#' Refuse parameters that the model does not know, and flags that are no flags.
check_parameters <- function(parameters, accepts) {
  if (length(parameters) == 0L) {
    return(invisible())
  }
  unknown <- setdiff(names(parameters), accepts)
  known <- if (length(accepts)) paste("this model knows", toString(accepts)) else "this model knows none"
  flags <- parameters[intersect(names(parameters), c("probabilities", "classes"))]
  no_flag <- names(Filter(Negate(is.logical), flags))
  problems <- c(
    sprintf("parameters.%s is not known: %s", unknown, known),
    sprintf("parameters.%s: expected true or false, got %s", no_flag, vapply(flags[no_flag], shown, ""))
  )
  if (length(problems)) stop_invalid(problems)
}

#' One list of cells for each input, checked.
instance_columns <- function(instances, inputs) {
  names <- vapply(inputs, `[[`, "", "name")
  found <- instance_rows(instances, names)
  labels <- sprintf("instances[%d]", found$at - 1L)
  columns <- lapply(seq_along(inputs), function(column) lapply(found$rows, .subset2, column))
  problems <- found$problems
  for (column in seq_along(inputs)) {
    places <- ifelse(found$named, paste0(labels, ".", names[[column]]), sprintf("%s[%d]", labels, column - 1L))
    wrong <- check_cells(columns[[column]], inputs[[column]], places)
    if (length(wrong$row)) {
      problems <- rbind(problems, data.frame(row = found$at[wrong$row], column = column, text = wrong$text))
    }
  }
  if (nrow(problems) > 0) {
    stop_invalid(problems$text[order(problems$row, problems$column)])
  }
  columns
}

# The instances that have all values, in the order of the signature; where (`at`) they are; what is wrong with others.
instance_rows <- function(instances, names) {
  problems <- data.frame(row = integer(), column = integer(), text = character())
  objects <- vapply(instances, is_object, NA)
  # The usual case, all objects with the fields in signature order, needs no work.
  same <- objects & vapply(instances, function(instance) identical(names(instance), names), NA)
  right <- same | (!objects & vapply(instances, is_array, NA) & lengths(instances) == length(names))
  rows <- instances
  seen <- list(names = NULL)
  for (at in which(!right)) {
    instance <- instances[[at]]
    # Other orders mostly come in numbers too, so what was found out about one is kept for the next.
    if (objects[[at]] && !identical(names(instance), seen$names)) seen <- study_names(names(instance), names)
    found <- if (objects[[at]]) seen$problems else wrong_shape(instance, names)
    if (length(found)) {
      text <- sprintf("instances[%d]%s", at - 1L, found)
      problems <- rbind(problems, data.frame(row = at, column = 0L, text = text))
      if (nrow(problems) >= enough_problems) break
    }
    if (objects[[at]] && !is.null(seen$order)) {
      rows[[at]] <- instance[seen$order]
      right[[at]] <- TRUE
    }
  }
  list(rows = rows[right], at = which(right), named = objects[right], problems = problems)
}

# What is wrong with the names of an object, and the order that makes them the signature's; NULL where some are missing.
study_names <- function(given, wanted) {
  missing <- setdiff(wanted, given)
  unknown <- setdiff(given, wanted)
  list(
    names = given,
    problems = c(
      vapply(unknown, function(name) paste(": there is no input", shown(name)), "", USE.NAMES = FALSE),
      sprintf(".%s is missing", missing)
    ),
    order = if (length(missing) == 0) match(wanted, given)
  )
}

wrong_shape <- function(instance, names) {
  if (is_array(instance)) {
    return(sprintf(": expected %d values, got %d", length(names), length(instance)))
  }
  paste(": expected an object or an array, got", kind_of(instance))
}

#' What is wrong with the cells of one input: a list of `row` (an index into `cells`) and `text`.
check_cells <- function(cells, input, places) {
  wrong <- if (length(input$shape) > 1L) {
    check_nested(cells, input$datatype, input$shape[-1])
  } else {
    check_scalars(cells, input$datatype, input$categories)
  }
  row <- utils::head(which(nzchar(wrong)), enough_problems)
  if (length(row) == 0L) {
    return(list(row = row, text = character())) # `places` are made for nothing: they stay a promise
  }
  list(row = row, text = paste0(places[row], wrong[row], recycle0 = TRUE))
}

# "" for each cell that is right, else what follows its place in the message.
check_scalars <- function(cells, datatype, categories = NULL) {
  if (length(cells) == 0) {
    return(character())
  }
  if (is.atomic(cells) && all_right(cells[!is.na(cells)], datatype, categories)) {
    return(character(length(cells)))
  }
  cells <- as_cells(cells)
  types <- vapply(cells, typeof, "")
  numeric <- types %in% c("integer", "double")
  values <- rep(NA_real_, length(cells))
  values[numeric] <- as.double(unlist(cells[numeric], use.names = FALSE))
  if (datatype %in% names(integer_limits)) {
    expected <- "an integer"
    limits <- integer_limits[[datatype]]
    right <- numeric & (values == trunc(values) | !is.finite(values))
  } else if (datatype %in% names(float_limits)) {
    expected <- "a number"
    limits <- c(-1, 1) * float_limits[[datatype]]
    right <- numeric
  } else if (datatype == "BOOL") {
    expected <- "true or false"
    right <- types == "logical"
  } else if (datatype == "BYTES") {
    expected <- "a string"
    right <- types == "character"
  } else {
    return(rep(sprintf(": the signature says %s, which is not a datatype", datatype), length(cells)))
  }
  wrong <- character(length(cells))
  bad <- which(!right & types != "NULL")
  wrong[bad] <- sprintf(": expected %s, got %s", expected, vapply(cells[bad], shown, ""))
  over <- if (any(numeric & right)) which(numeric & right & !(values >= limits[[1]] & values <= limits[[2]]))
  why <- ifelse(abs(values[over]) >= 2^53 & is.finite(values[over]), " (R is exact below 2^53)",
                ifelse(values[over] == -2^31, " (R's least integer is -2^31 + 1)", ""))
  wrong[over] <- sprintf(": expected %s, got %s, which does not fit%s", datatype, vapply(cells[over], shown, ""), why)
  if (length(categories)) {
    known <- types == "NULL" | cells %in% as.list(categories)
    unknown <- which(!known & !nzchar(wrong))
    wrong[unknown] <- sprintf(": expected %s, got %s", one_of(categories), vapply(cells[unknown], shown, ""))
  }
  wrong
}

# Whether all of a plain vector's values are right: tensors in binary form have no cells.
all_right <- function(values, datatype, categories) {
  right <- if (datatype %in% names(integer_limits)) {
    limits <- integer_limits[[datatype]]
    is.numeric(values) && all(values == trunc(values) & values >= limits[[1]] & values <= limits[[2]])
  } else if (datatype %in% names(float_limits)) {
    is.numeric(values) && all(abs(values) <= float_limits[[datatype]])
  } else {
    typeof(values) == switch(datatype, BOOL = "logical", BYTES = "character", "")
  }
  right && (length(categories) == 0L || all(values %in% unlist(categories)))
}

# A vector as JSON would have come: a list, with NULL for what is missing.
as_cells <- function(values) {
  if (is.list(values)) {
    return(values)
  }
  cells <- as.list(values)
  cells[is.na(values)] <- list(NULL)
  cells
}

check_nested <- function(cells, datatype, shape) {
  vapply(cells, function(cell) {
    if (is.null(cell)) {
      return("")
    }
    if (!is_array(cell)) {
      return(paste(": expected an array, got", kind_of(cell)))
    }
    if (!shape[[1]] %in% c(-1, length(cell))) {
      return(sprintf(": expected %.0f values, got %d", shape[[1]], length(cell)))
    }
    inner <- if (length(shape) > 1L) check_nested(cell, datatype, shape[-1]) else
      check_scalars(cell, datatype)
    first <- match(TRUE, nzchar(inner), nomatch = 0L)
    if (first > 0L) sprintf("[%d]%s", first - 1L, inner[[first]]) else ""
  }, "", USE.NAMES = FALSE)
}

#' Columns of cells as a data frame with R's own types; null becomes NA.
as_frame <- function(columns, count, inputs) {
  frame <- Map(as_column, columns, lapply(inputs, `[[`, "datatype"), lapply(inputs, `[[`, "shape"),
               lapply(inputs, `[[`, "categories"))
  names(frame) <- vapply(inputs, `[[`, "", "name")
  structure(frame, row.names = .set_row_names(count), class = "data.frame")
}

as_column <- function(cells, datatype, shape, categories = NULL) {
  if (length(shape) > 1L) {
    flat <- length(shape) == 2L
    return(I(lapply(cells, function(cell) if (flat && !is.null(cell)) as_column(cell, datatype, -1L) else cell)))
  }
  if (is.list(cells)) {
    cells[vapply(cells, is.null, NA)] <- NA
    cells <- unlist(cells, use.names = FALSE)
  }
  values <- if (length(cells)) cells else logical()
  if (datatype %in% c("INT8", "INT16", "INT32", "UINT8", "UINT16")) {
    as.integer(values)
  } else if (datatype == "BYTES") {
    if (length(categories)) factor(as.character(values), categories) else as.character(values)
  } else if (datatype == "BOOL") {
    as.logical(values)
  } else {
    as.double(values)
  }
}

# -- what JSON is, in R's terms

is_object <- function(x) is.list(x) && !is.null(names(x))
is_array <- function(x) is.list(x) && is.null(names(x))

# The last of several.
member <- function(object, name) {
  at <- which(names(object) == name)
  if (length(at)) object[[at[[length(at)]]]]
}

kind_of <- function(x) {
  if (is.null(x)) {
    "null"
  } else if (is_object(x)) {
    "an object"
  } else if (is.list(x)) {
    "an array"
  } else if (is.character(x)) {
    "a string"
  } else if (is.logical(x)) {
    "a boolean"
  } else {
    "a number"
  }
}

#' A caller's value in a message: short, and JSON.
shown <- function(x) {
  if (is.list(x)) {
    return(kind_of(x))
  }
  if (is.null(x)) {
    return("null")
  }
  if (is.numeric(x) && !is.finite(x)) {
    return("a number with many digits")
  }
  text <- json_values(x, whole = is.numeric(x) && abs(x) >= 2^31)
  if (nchar(text) > 40L) paste0(substr(text, 1L, 37L), "\u2026") else text
}
