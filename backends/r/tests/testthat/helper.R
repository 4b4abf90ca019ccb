home <- normalizePath(file.path("..", ".."))
for (file in c(sort(Sys.glob(file.path(home, "R", "*.R"))), file.path(home, "predict.R"))) source(file, local = TRUE)

tensor <- function(name, datatype = "FP64", shape = -1L) list(name = name, datatype = datatype, shape = shape)

body <- function(text) parse_body(charToRaw(enc2utf8(text)))

#' What read_instances() makes of `text`, for inputs of these datatypes, named a, b, c...
rows_of <- function(text, ...) {
  types <- c(...)
  read_instances(body(text), Map(tensor, letters[seq_along(types)], types))$rows
}

problem_of <- function(expr) {
  problem <- tryCatch({
    expr
    NULL
  }, chips_problem = identity)
  if (is.null(problem)) stop("no problem was signalled")
  problem
}

expect_problem <- function(expr, code, pattern) {
  problem <- problem_of(expr)
  expect_equal(problem$code, code)
  expect_match(conditionMessage(problem), pattern)
}

quiet_log <- function() {
  lines <- character()
  keep <- function(message, ...) lines <<- c(lines, message)
  list(info = keep, warning = keep, error = keep, request = keep, lines = function() lines)
}
