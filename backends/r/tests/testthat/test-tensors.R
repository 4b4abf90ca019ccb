infer <- function(text, ...) {
  types <- c(...)
  read_tensors(body(text), Map(tensor, letters[seq_along(types)], types))
}
one <- function(data, shape = "[2]", datatype = "FP64", name = "a") {
  sprintf('{"name": "%s", "shape": %s, "datatype": "%s", "data": %s}', name, shape, datatype, data)
}
request <- function(...) sprintf('{"id": "7", "inputs": [%s]}', paste(..., sep = ","))

test_that("a tensor for each input, or one for all, nested or flat", {
  expected <- data.frame(a = c(1, 2), b = c(3, 4))
  by_name <- infer(request(one("[3, 4]", name = "b"), one("[[1], [2]]", "[2, 1]")), "FP64", "FP64")
  expect_equal(by_name$rows, expected)
  expect_equal(by_name$id, "7")
  expect_equal(infer(request(one("[1, 3, 2, 4]", "[2, 2]", name = "all")), "FP64", "FP64")$rows, expected)
  expect_equal(infer(request(one("[[1, 3], [2, 4]]", "[2, 2]", name = "all")), "FP64", "FP64")$rows, expected)
  expect_equal(infer(request(one("[]", "[0]")), "FP64")$count, 0L)
  expect_equal(infer(request(one("[null, 2]")), "FP64")$rows, data.frame(a = c(NA, 2)))
})

test_that("what is wrong is named", {
  cases <- list(
    c('{"inputs": []}', "at least one tensor"), c("[]", "expected an object"),
    c('{"id": 1, "inputs": []}', "id must be"),
    c('{"inputs": [1]}', "inputs\\[0\\]: expected an object"), c('{"inputs": [{}]}', "name must be a string"),
    c(request(one("[1, 2]", datatype = "FP99")), "\"FP99\" is not a datatype"),
    c(request(one("[1, 2]", "[3]")), "means 3 values, data has 2"),
    c(request(one("[1, 2]", "[-2]")), "array of sizes"),
    c(request(one("[1, 2]", "[2.0]")), "array of sizes"), c(request(one("[1, 2]", "[]")), "array of sizes"),
    c(request(one('"x"')), "data must be an array"),
    c(request(one('[1, "x"]')), "inputs\\[0\\].data\\[1\\]: expected a number"),
    c(request(one("[1, 2]", name = "z")), "there is no input \"z\"; input a is missing"),
    c(request(one("[1, 2]"), one("[1, 2]")), "there twice"),
    c(request(one('["x", "y"]', datatype = "BYTES")), "a\\[0\\]: expected a number, got \"x\"")
  )
  for (case in cases) expect_problem(infer(case[[1]], "FP64"), "invalid-instances", case[[2]])
  expect_problem(infer(request(one("[1, 2]"), one("[1]", "[1]", name = "b")), "FP64", "FP64"), "invalid-instances",
                 "differ in their number of rows")
  expect_problem(infer(request(one("[1, 2, 3]", "[1, 3]", name = "all")), "FP64", "FP64"), "invalid-instances",
                 "expected shape \\[rows, 2\\]")
})

outputs_of <- function(predictions, declared = list()) jsonlite::parse_json(render_outputs(predictions, declared))

test_that("predictions are written by their shape", {
  expect_equal(render_predictions(c(a = 1.5, b = NA), list()), "[1.5,null]")
  expect_equal(render_predictions(1, list()), "[1.0]")
  expect_equal(render_predictions(2, list(tensor("y", "INT64"))), "[2]")
  expect_equal(render_predictions(factor("x"), list()), "[\"x\"]")
  expect_equal(render_predictions(matrix(1:4, 2), list()), "[[1,3],[2,4]]")
  expect_equal(render_predictions(data.frame(y = 1L, z = "a"), list()), "[{\"y\":1,\"z\":\"a\"}]")
  expect_equal(render_predictions(list(), list()), "[]")
  expect_equal(render_predictions(list(1:2, NULL), list()), "[[1,2],null]")
})

test_that("and as tensors, of the declared datatype where they fit", {
  expect_equal(outputs_of(c(1, 2), list(tensor("y", "INT64")))[[1]],
               list(name = "y", shape = list(2L), datatype = "INT64", data = list(1L, 2L)))
  expect_equal(outputs_of(c(1.5, 2), list(tensor("y", "INT64")))[[1]]$datatype, "FP64")
  expect_equal(outputs_of(c("u", "v"))[[1]][c("name", "datatype")], list(name = "prediction", datatype = "BYTES"))
  expect_equal(outputs_of(matrix(1:6, 2))[[1]][c("shape", "data")],
               list(shape = list(2L, 3L), data = list(1L, 3L, 5L, 2L, 4L, 6L)))
  expect_equal(length(outputs_of(data.frame(y = 1:2, z = 3:4))), 2L)
  expect_equal(outputs_of(double(), list(tensor("y", "BYTES")))[[1]],
               list(name = "y", shape = list(0L), datatype = "BYTES", data = list()))
})
