predictions_of <- function(value, count, outputs = list()) {
  jsonlite::parse_json(render_predictions(as_answer(value, count, outputs), outputs))
}
tensors_of <- function(value, count, outputs = list()) {
  jsonlite::parse_json(render_outputs(as_answer(value, count, outputs), outputs)$json)
}
several <- list(tensor("price"), tensor("sold", "BOOL"))

test_that("one output is a value a row, or an array a row", {
  rendered <- function(value, count, outputs = list()) render_predictions(as_answer(value, count, outputs), outputs)
  expect_equal(rendered(c(a = 1.5, b = NA), 2L), "[1.5,null]")
  expect_equal(rendered(1, 1L), "[1.0]")
  expect_equal(rendered(2, 1L, list(tensor("y", "INT64"))), "[2]")
  expect_equal(rendered(factor("x"), 1L), "[\"x\"]")
  expect_equal(rendered(matrix(1:4, 2), 2L), "[[1,3],[2,4]]")
  expect_equal(rendered(matrix(1:2, 2), 2L), "[1,2]")
  expect_equal(rendered(matrix(1:2, 2), 2L, list(tensor("y", shape = c(-1, 1)))), "[[1],[2]]")
  expect_equal(rendered(data.frame(y = 1:2), 2L), "[1,2]")
  expect_equal(rendered(list(1:2, NULL), 2L), "[[1,2],null]")
  expect_equal(rendered(stats::ts(c(1, 2), start = 2000), 2L), "[1.0,2.0]")
  expect_equal(rendered(as.POSIXlt("2026-11-29 10:00:00", tz = "UTC"), 1L), "[\"2026-11-29T10:00:00Z\"]")
  expect_equal(rendered(as.difftime(2, units = "mins"), 1L), "[120.0]")
  expect_equal(rendered(array(1:4, c(2, 2, 1)), 2L), "[[1,3],[2,4]]")
  expect_equal(render_predictions(empty_answer(list()), list()), "[]")
  expect_equal(render_predictions(empty_answer(several), several), "[]")
})

test_that("several outputs are an object a row, by name where there are names", {
  expect_equal(predictions_of(data.frame(y = 1L, z = "a"), 1L), list(list(y = 1L, z = "a")))
  table <- data.frame(sold = c(TRUE, FALSE), price = c(1, 2))
  expect_equal(predictions_of(table, 2L, several)[[1]], list(price = 1L, sold = TRUE))
  expect_equal(predictions_of(as.list(table), 2L, several)[[2]], list(price = 2L, sold = FALSE))
  expect_equal(predictions_of(matrix(1:4, 2, dimnames = list(NULL, c("sold", "price"))), 2L, several)[[1]],
               list(price = 3L, sold = 1L))
  expect_equal(predictions_of(matrix(1:4, 2), 2L, several)[[1]], list(price = 1L, sold = 3L))
  tensors <- tensors_of(table, 2L, several)
  expect_equal(tensors[[2]], list(name = "sold", shape = list(2L), datatype = "BOOL", data = list(TRUE, FALSE)))
})

test_that("what has no rows first is refused, whatever its length", {
  list_of_parts <- list(class = factor(c("a", "b")), posterior = matrix(0.5, 2, 2))
  expect_error(as_answer(list_of_parts, 2L), "the parts class, posterior")
  expect_error(as_answer(list_of_parts, 2L, list(tensor("y"))), "which part is the prediction")
  expect_error(as_answer(matrix(1:6, 2), 3L), "2 predictions for 3 rows")
  expect_error(as_answer(1, 2L), "1 predictions for 2 rows")
  expect_error(as_answer(1:2, 2L, several), "2 outputs")
  expect_error(as_answer(matrix(1:6, 2), 2L, several), "3 columns")
  expect_error(as_answer(matrix(1:6, 2), 2L, list(tensor("y"))), "3 values for each row")
  expect_error(as_answer(matrix(1:6, 2), 2L, list(tensor("y", shape = c(-1, 2)))), "3 values for each row")
  expect_error(as_answer(data.frame(a = 1, b = 2), 1L, several), "outputs are price, sold")
  expect_error(as_answer(array(1:8, c(2, 2, 2)), 2L), "3 dimensions")
  expect_error(as_answer(mean, 1L), "class function")
  expect_error(as_answer(NULL, 1L), "class NULL")
  expect_error(as_answer(structure(1, class = "odd"), 1L), "class odd")
  expect_error(as_answer(1i, 1L), "complex")
})

test_that("tensors have the declared datatype where the values fit", {
  expect_equal(tensors_of(c(1, 2), 2L, list(tensor("y", "INT64")))[[1]],
               list(name = "y", shape = list(2L), datatype = "INT64", data = list(1L, 2L)))
  expect_equal(tensors_of(c(1.5, 2), 2L, list(tensor("y", "INT64")))[[1]]$datatype, "FP64")
  expect_equal(tensors_of(c("u", "v"), 2L)[[1]][c("name", "datatype")], list(name = "prediction", datatype = "BYTES"))
  expect_equal(tensors_of(matrix(1:6, 2), 2L)[[1]][c("shape", "data")],
               list(shape = list(2L, 3L), data = list(1L, 3L, 5L, 2L, 4L, 6L)))
  expect_equal(tensors_of(list(1:2, 3:4), 2L)[[1]][c("shape", "data")],
               list(shape = list(2L, 2L), data = list(1L, 2L, 3L, 4L)))
  expect_equal(tensors_of(list(1:2, 3L), 2L)[[1]][c("datatype", "data")],
               list(datatype = "BYTES", data = list("[1,2]", "3")))
  expect_equal(length(tensors_of(data.frame(y = 1:2, z = 3:4), 2L)), 2L)
  texts <- list(tensor("y", "BYTES"))
  empty <- jsonlite::parse_json(render_outputs(empty_answer(texts), texts)$json)
  expect_equal(empty[[1]], list(name = "y", shape = list(0L), datatype = "BYTES", data = list()))
})

test_that("two shares of successes are not the labels of classes", {
  data <- data.frame(x = 1:4, share = c(0.25, 0.75, 0.25, 0.75), trials = 4)
  expect_null(class_probabilities(glm(share ~ x, binomial, data, weights = trials), data))
  expect_identical(colnames(class_probabilities(glm(round(share) ~ x, binomial, data), data)), c("0", "1"))
})
