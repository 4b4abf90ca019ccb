# Random requests and values for the tests of the compiled part, and what must hold for each.

fuzz_inputs <- list(
  list(name = "a", datatype = "FP64", shape = -1), list(name = "b", datatype = "INT32", shape = -1),
  list(name = "c\u00e4 \"q\"", datatype = "BYTES", shape = -1), list(name = "d", datatype = "BOOL", shape = -1),
  list(name = "e", datatype = "BYTES", shape = -1, categories = c("red", "gr\u00fcn", "")),
  list(name = "f", datatype = "INT64", shape = -1), list(name = "g", datatype = "FP16", shape = -1),
  list(name = "h", datatype = "INT8", shape = -1, categories = list(1L, 2L, 100L))
)
fuzz_numbers <- fuzz_inputs[c(1, 7)]

any_of <- function(x) x[[sample.int(length(x), 1L)]]

random_number <- function() {
  any_of(list("0", "-0", "-0.0", "1", "2", "1.0", "1e0", "100", "1e2", "1.00E+2", "127", "128", "-128", "65504",
              "65505", "0.1", "-1.5e-3", "2147483647", "-2147483648", "2147483648", "9007199254740991",
              "9007199254740993",
              "1e308", "1e309", "4.9e-324", "1e-400", "123456789012345678901234567890", "01", "+1", "1.", ".5", "1e",
              "NaN", sprintf("%.17g", stats::rnorm(1) * 10^sample(-20:20, 1L)), as.character(sample.int(1000L, 1L))))
}

random_text <- function() {
  any_of(list('"red"', '"gr\u00fcn"', '"gr\\u00fcn"', '""', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\u0000"', '"a\\n\\/"',
              '"\\x"', '"\U1F600"', "\"\t\"", '"tea\u0308"', '"\\u12"', '"blue"', '"a'))
}

random_cell <- function(input) {
  if (stats::runif(1) < 0.03) {
    return(any_of(list("null", "true", "[]", "{}", "[1]", "nul", "tru", "", random_number(), random_text())))
  }
  if (stats::runif(1) < 0.1) {
    return("null")
  }
  usual <- function(often, seldom) if (stats::runif(1) < 0.95) any_of(often) else seldom
  switch(input$datatype,
    BYTES = usual(list('"red"', '""', '"gr\u00fcn"', '"gr\\u00fcn"'), random_text()),
    BOOL = any_of(list("true", "false")),
    FP64 = usual(list("1", "0.1", "-2.5", "1e5", "3.14159265358979"), random_number()),
    INT8 = usual(list("1", "2", "100", "1e2", "2.0"), random_number()),
    usual(list("1", "-2", "7.0", "12"), random_number())
  )
}

spaced <- function(x) if (stats::runif(1) < 0.03) paste0(any_of(list(" ", "\n", "\t\r ", "\f")), x) else x

random_instances <- function(inputs) {
  row <- function() {
    cells <- vapply(inputs, function(input) spaced(random_cell(input)), "")
    if (stats::runif(1) < 0.3) {
      return(json_array(cells))
    }
    fields <- paste0(json_string(vapply(inputs, `[[`, "", "name")), ":", cells)
    if (stats::runif(1) < 0.2) fields <- sample(fields)
    if (stats::runif(1) < 0.03) fields <- c(fields, fields[[1]])
    if (stats::runif(1) < 0.02) fields <- c(fields, '"z":1')
    if (stats::runif(1) < 0.02) fields <- fields[-1]
    if (stats::runif(1) < 0.1) fields <- vapply(fields, json_ascii, "")
    paste0("{", paste(spaced(fields), collapse = ","), "}")
  }
  rows <- json_array(vapply(seq_len(sample(0:6, 1L)), function(i) row(), ""))
  more <- list("", ',"parameters":{}', ',"parameters":{"probabilities":true}', ',"parameters":null',
               ',"parameters":[1]', ',"x":1', ',"instances":[]')
  paste0('{"instances":', rows, any_of(more), "}")
}

random_tensor <- function(name, shape, datatype, cells) {
  if (length(shape) == 2L && stats::runif(1) < 0.3 && length(cells) == prod(shape)) {
    cells <- vapply(split(cells, rep(seq_len(shape[[1]]), each = shape[[2]])), json_array, "")
  }
  parts <- c(paste0('"name":', json_string(name)), paste0('"shape":', json_array(as.character(shape))),
             paste0('"datatype":"', datatype, '"'), paste0('"data":', json_array(cells)),
             if (stats::runif(1) < 0.1) '"parameters":{"content_type":"np"}')
  if (stats::runif(1) < 0.2) parts <- sample(parts)
  paste0("{", paste(spaced(parts), collapse = ","), "}")
}

random_infer <- function(inputs) {
  count <- sample(0:4, 1L)
  if (identical(inputs, fuzz_numbers) && stats::runif(1) < 0.5) {
    cells <- vapply(rep(inputs, count), random_cell, "")
    tensors <- random_tensor(any_of(list("x", "x", "a")), c(count, 2L), any_of(list("FP64", "FP32", "INT32")), cells)
  } else {
    tensors <- vapply(inputs, function(input) {
      datatype <- if (stats::runif(1) < 0.03) any_of(as.list(datatypes)) else input$datatype
      cells <- vapply(seq_len(count), function(i) random_cell(input), "")
      random_tensor(input$name, if (stats::runif(1) < 0.5) count else c(count, 1L), datatype, cells)
    }, "")
    if (stats::runif(1) < 0.2) tensors <- sample(tensors)
  }
  more <- list("", ',"id":"i"', ',"id":null', ',"id":3', ',"outputs":[{"name":"p"}]', ',"outputs":[]',
               ',"parameters":{"binary_data_output":false,"type":"x"}', ',"model_name":3', ',"z":1')
  paste0('{"inputs":', json_array(tensors), any_of(more), "}")
}

# Mutations of a byte or a few, seldom.
mutated <- function(bytes) {
  if (length(bytes) == 0L || stats::runif(1) < 0.6) {
    return(bytes)
  }
  at <- sample.int(length(bytes), 1L)
  switch(sample.int(4L, 1L),
    replace(bytes, at, as.raw(sample(0:255, 1L))), bytes[-at], append(bytes, bytes[[at]], at),
    utils::head(bytes, at)
  )
}

random_request <- function() {
  inputs <- if (stats::runif(1) < 0.6) fuzz_inputs else fuzz_numbers
  kind <- any_of(list("predict", "infer"))
  text <- if (kind == "infer") random_infer(inputs) else random_instances(inputs)
  list(kind = kind, inputs = inputs, body = mutated(charToRaw(enc2utf8(text))))
}

#' "read" where both readers read it alike, "refused" where the compiled one leaves it to the other; else an error.
compare_readers <- function(request) {
  fast <- tryCatch(read_compiled(request$kind, request$body, reading_plan(request$inputs), datatype_plan()),
                   chips_problem = identity)
  if (is.null(fast)) {
    return("refused")
  }
  read_slowly <- if (request$kind == "infer") read_tensors else read_instances
  slow <- tryCatch(read_slowly(parse_body(request$body), request$inputs), chips_problem = identity)
  alike <- if (inherits(fast, "chips_problem")) inherits(slow, "chips_problem") && slow$status == fast$status else
    identical(fast, slow[names(fast)])
  if (!alike) {
    stop("the readers differ: ", request$kind, " ", deparse(rawToChar(request$body)), "\ncompiled: ",
         paste(utils::capture.output(utils::str(fast)), collapse = "\n"), "\nR: ",
         paste(utils::capture.output(utils::str(slow)), collapse = "\n"))
  }
  "read"
}

random_values <- function() {
  count <- sample(0:5, 1L)
  double <- stats::rnorm(count) * 10^sample(-300:300, count, TRUE)
  any_of(list(
    double, round(double, 3), stats::rnorm(count),
    c(0, -0, NA, Inf, NaN, 1e15, 1e16, 123456789, 1e-5, 0.0001, 1e22, 0.1 + 0.2),
    sample(-5:5, count, TRUE), c(NA, 2147483647L), c(TRUE, NA, FALSE)[seq_len(min(3L, count))],
    c("a", NA, "\u00e4\"\\\n\u0001", "\U1F600", "")[seq_len(min(5L, count))], matrix(stats::rnorm(2L * count), count),
    matrix(sample.int(9L, 2L * count, TRUE), count)
  ))
}

compare_writers <- function(values) {
  for (whole in c(FALSE, TRUE)) {
    fast <- .Call(compiled$write_array, values, whole)
    slow <- json_array(row_texts(values, whole))
    if (!identical(fast, slow)) stop("the writers differ: ", deparse(values), "\ncompiled: ", fast, "\nR: ", slow)
  }
}
