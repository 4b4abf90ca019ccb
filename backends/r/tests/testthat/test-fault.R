config <- list(model = "cars", version = "1")
inputs <- list(tensor("speed"), tensor("weight"))
answer_of <- function(text, predict, kind = "predict") {
  service <- new_service(NULL, list(signature = list(inputs = inputs, outputs = list()), samples = list()))
  service$facts <- list(good = list(rows = data.frame(speed = 1, weight = 1), parameters = list()))
  old <- predict_rows
  on.exit(assign("predict_rows", old, envir = environment(score)))
  assign("predict_rows", predict, envir = environment(score))
  answer_scoring(service, config, kind, charToRaw(text))
}
picky <- function(model, rows, parameters) {
  if (any(rows$weight > 100)) stop("too heavy")
  if (any(rows$speed == 7 & rows$weight == 7)) stop("an odd pair")
  rows$speed
}

test_that("the first row that fails alone is named, and the field that the good row cannot have either", {
  answer <- answer_of('{"instances": [[1, 1], [2, 2], [3, 300], [4, 400]]}', picky)
  expect_equal(conditionMessage(answer$problem), "instances[2].weight: the model cannot take 300.0")
  expect_match(answer$stack, "too heavy")
  answer <- answer_of('{"instances": [[1, 1], [7, 7]]}', picky)
  expect_equal(conditionMessage(answer$problem), "instances[1]: the model cannot take this row")
  tensors <- paste0('{"inputs": [{"name": "speed", "shape": [1], "datatype": "FP64", "data": [1]},',
                    '{"name": "weight", "shape": [1], "datatype": "FP64", "data": [300]}]}')
  expect_equal(conditionMessage(answer_of(tensors, picky, "infer")$problem), "weight[0]: the model cannot take 300.0")
})

test_that("what the good row cannot do either is the model's fault, and so is what works at the second try", {
  expect_equal(answer_of('{"instances": [[1, 1]]}', function(...) stop("broken"))$problem$status, 500L)
  tries <- 0L
  flaky <- function(model, rows, parameters) {
    tries <<- tries + 1L
    if (tries == 1L) stop("flaky")
    rows$speed
  }
  expect_equal(answer_of('{"instances": [[1, 1]]}', flaky)$problem$status, 500L)
  together <- function(model, rows, parameters) if (nrow(rows) > 1L) stop("one at a time") else rows$speed
  expect_equal(answer_of('{"instances": [[1, 1], [2, 2]]}', together)$problem$status, 500L)
})
