test_that("objects and arrays become the same rows, in any order of fields", {
  objects <- rows_of('{"instances": [{"a": 1, "b": "x"}, {"b": "y", "a": 2.5}]}', "FP64", "BYTES")
  arrays <- rows_of('{"instances": [[1, "x"], [2.5, "y"]]}', "FP64", "BYTES")
  mixed <- rows_of('{"instances": [{"b": "x", "a": 1}, [2.5, "y"]]}', "FP64", "BYTES")
  expected <- data.frame(a = c(1, 2.5), b = c("x", "y"))
  expect_equal(objects, expected)
  expect_equal(arrays, expected)
  expect_equal(mixed, expected)
})

test_that("columns have R's types, and null is NA of the type", {
  rows <- rows_of('{"instances": [[1, 1, true, "x", 3000000000], [null, null, null, null, null]]}',
                  "FP64", "INT32", "BOOL", "BYTES", "INT64")
  expect_identical(rows, data.frame(a = c(1, NA), b = c(1L, NA), c = c(TRUE, NA), d = c("x", NA), e = c(3e9, NA)))
  all_null <- rows_of('{"instances": [[null, null]]}', "BYTES", "FP32")
  expect_identical(all_null, data.frame(a = NA_character_, b = NA_real_))
})

test_that("no rows, one row and one column stay data frames", {
  expect_equal(dim(rows_of('{"instances": []}', "FP64", "INT8")), c(0L, 2L))
  expect_equal(rows_of('{"instances": [[7]]}', "INT64"), data.frame(a = 7))
  expect_equal(rows_of('{"instances": [{"a": 7}, {"a": 8}]}', "INT64"), data.frame(a = c(7, 8)))
})

test_that("integers must be whole, however they are written, and fit", {
  wrong <- list(
    c("INT32", "1.5", "expected an integer, got 1.5"), c("INT32", "1e-3", "expected an integer"),
    c("INT32", "true", "expected an integer, got true"), c("INT32", "\"1\"", "expected an integer, got \"1\""),
    c("INT32", "2147483648", "INT32, got 2147483648, which does not fit"), c("INT8", "128", "does not fit"),
    c("INT32", "-2147483648", "least integer is -2\\^31 \\+ 1"),
    c("UINT8", "-1", "does not fit"), c("UINT32", "4294967296", "does not fit"),
    c("INT64", "9007199254740993", "exact below 2\\^53"), c("INT64", "9.1e15", "exact below 2\\^53"),
    c("INT64", strrep("9", 400), "a number with many digits, which does not fit")
  )
  for (case in wrong) expect_problem(rows_of(sprintf('{"instances": [[%s]]}', case[[2]]), case[[1]]),
                                     "invalid-instances", case[[3]])
  right <- rows_of('{"instances": [[2147483647, 4294967295, 9007199254740991, -2147483647]]}',
                   "INT32", "UINT32", "INT64", "INT32")
  expect_identical(right, data.frame(a = 2147483647L, b = 4294967295, c = 2^53 - 1, d = -2147483647L))
  floats <- rows_of('{"instances": [[1.0, 1e3, 3000000000.0, 3e9], [null, 2, 2, 2]]}',
                    "INT32", "INT16", "UINT32", "INT64")
  expect_identical(floats, data.frame(a = c(1L, NA), b = c(1000L, 2L), c = c(3e9, 2), d = c(3e9, 2)))
})

test_that("a value outside of the categories is refused, and they make the factor", {
  inputs <- list(c(tensor("colour", "BYTES"), list(categories = c("red", "green"))),
                 c(tensor("gears", "INT32"), list(categories = 3:5)))
  rows <- read_instances(body('{"instances": [["green", 3], [null, null]]}'), inputs)$rows
  expect_identical(rows, data.frame(colour = factor(c("green", NA), c("red", "green")), gears = c(3L, NA)))
  wrong <- body('{"instances": [["green", 3], ["teal", 6]]}')
  expect_problem(read_instances(wrong, inputs), "invalid-instances", paste0(
    "^instances\\[1\\]\\[0\\]: expected one of \"red\", \"green\", got \"teal\"; ",
    "instances\\[1\\]\\[1\\]: expected one of 3, 4, 5, got 6$"
  ))
})

test_that("what would be ignored is refused: fields and parameters that nobody knows", {
  expect_problem(rows_of('{"instances": [], "probabilities": true}', "FP64"), "invalid-instances",
                 "no field \"probabilities\"")
  expect_problem(check_parameters(list(probabilty = TRUE), c("classes", "probabilities")), "invalid-instances",
                 "parameters.probabilty is not known: this model knows classes, probabilities")
  for (value in list("false", 0L, 1, list())) {
    expect_problem(check_parameters(list(probabilities = value), "probabilities"), "invalid-instances", "true or false")
  }
  expect_silent(check_parameters(list(probabilities = FALSE), "probabilities"))
  read <- read_instances(body('{"instances": [], "parameters": {"a": 2, "b": null}}'), list())
  expect_equal(read$parameters, list(a = 2L))
})

test_that("numbers must be numbers, and finite", {
  for (value in c('"1"', "true", "[1]", "{}")) {
    expect_problem(rows_of(sprintf('{"instances": [[%s]]}', value), "FP64"), "invalid-instances",
                   "instances\\[0\\]\\[0\\]: expected a number")
  }
  expect_problem(rows_of('{"instances": [{"a": 1e39}]}', "FP32"), "invalid-instances",
                 "instances\\[0\\]\\.a: .* does not fit")
  expect_problem(rows_of('{"instances": [[1]]}', "FP128"), "invalid-instances", "not a datatype")
})

test_that("every problem says where it is, in order, ten at most", {
  expect_problem(
    rows_of('{"instances": [{"a": 1}, {"a": "x", "b": 1}, 5, [1], {"c": 1}]}', "FP64", "FP64"), "invalid-instances",
    paste0("^instances\\[0\\]\\.b is missing; instances\\[1\\]\\.a: expected a number, got \"x\"; instances\\[2\\]: ",
           "expected an object or an array, got a number; instances\\[3\\]: expected 2 values, got 1; ",
           "instances\\[4\\]: there is no input \"c\"; ",
           "instances\\[4\\]\\.a is missing; instances\\[4\\]\\.b is missing$")
  )
  many <- sprintf('{"instances": [%s]}', paste(rep('["x"]', 500), collapse = ","))
  detail <- conditionMessage(problem_of(rows_of(many, "FP64")))
  expect_length(strsplit(detail, "; ")[[1]], 11L)
  expect_match(detail, "; and more$")
})

test_that("the body must be an object with instances", {
  for (text in c("[]", "1", "null", "\"x\"", "{}", '{"instances": null}', '{"instances": {}}', '{"instances": 1}',
                 '{"instances": [], "parameters": []}', '{"instances": [], "parameters": 1}')) {
    expect_problem(rows_of(text, "FP64"), "invalid-instances", "expected an object|instances|parameters")
  }
})

test_that("a name that stands twice in one object is refused, and an empty name is a name", {
  for (text in c('{"instances": [{"a": 1, "a": 2}]}', '{"instances": [], "instances": []}',
                 '{"instances": [], "parameters": {"p": [{"": 1, "b": 2, "": 3}]}}')) {
    expect_problem(rows_of(text, "FP64"), "malformed-json", "the name \"(a|instances|)\" stands twice in one object")
  }
  expect_problem(rows_of('{"instances": [{"a": 1, "": 2}]}', "FP64"), "invalid-instances", "there is no input \"\"")
})

test_that("an input with more dimensions is a list of vectors", {
  inputs <- list(tensor("x", "FP64", c(-1L, 3L)), tensor("y", "INT32", c(-1L, -1L)))
  rows <- read_instances(body('{"instances": [[[1, 2, 3], [1]], [[4, 5, null], []]]}'), inputs)$rows
  expect_equal(unclass(rows$x)[[2]], c(4, 5, NA))
  expect_equal(unclass(rows$y), list(1L, integer()))
  for (case in list(c("[[1, 2], []]", "expected 3 values, got 2"), c("[1, []]", "expected an array, got a number"),
                    c('[[1, "x", 2], []]', "\\[0\\]\\[0\\]\\[1\\]: expected a number"))) {
    expect_problem(read_instances(body(sprintf('{"instances": [%s]}', case[[1]])), inputs), "invalid-instances",
                   case[[2]])
  }
})

test_that("levels, dates and times that are not known are the caller's mistake", {
  rows <- data.frame(f = c("lo", NA, "hi"), d = c("2026-02-28", NA, "2026-02-30"),
                     t = c("2026-11-24T10:00:00Z", NA, "x"))
  expect_equal(as_levels(rows, "f", c("lo", "hi"))$f, factor(c("lo", NA, "hi"), levels = c("lo", "hi")))
  expect_problem(as_levels(rows, "f", c("lo", "mid")), "invalid-instances",
                 "instances\\[2\\]\\.f: expected one of \"lo\", \"mid\", got \"hi\"")
  expect_problem(as_day(rows, "d"), "invalid-instances", "instances\\[2\\]\\.d: expected a date")
  expect_equal(as_day(rows[1:2, ], "d")$d, as.Date(c("2026-02-28", NA)))
  expect_problem(as_time(rows, "t"), "invalid-instances", "instances\\[2\\]\\.t")
  expect_equal(format(as_time(rows[1, ], "t")$t, "%H:%M"), "10:00")
})
