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

test_that("fields that the protocol does not have are refused, and outputs are picked by name", {
  expect_problem(infer('{"inputs": [], "probabilities": true}', "FP64"), "invalid-instances", "at least one|no field")
  expect_problem(infer(sprintf('{"input": 1, "inputs": [%s]}', one("[1, 2]")), "FP64"), "invalid-instances",
                 "no field \"input\"")
  more <- sprintf(paste0('{"inputs": [%s], "outputs": [{"name": "y"}, {"name": "x"}], "model_name": "z",',
                         '"parameters": {"content_type": "np", "binary_data_output": false, "own": 1}}'), one("[1, 2]"))
  read <- infer(more, "FP64")
  expect_equal(read[c("picked", "parameters")], list(picked = c("y", "x"), parameters = list(own = 1L)))
  for (outputs in c("{}", "[1]", '[{"names": "y"}]', "[{}]")) {
    expect_problem(infer(sprintf('{"inputs": [%s], "outputs": %s}', one("[1, 2]"), outputs), "FP64"),
                   "invalid-instances", "outputs must be")
  }
})
