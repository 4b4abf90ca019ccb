config <- list(model = "cars", version = "1")
service <- function(model, samples = list(), outputs = list(), inputs = list(tensor("speed"))) {
  new_service(model, list(signature = list(inputs = inputs, outputs = outputs), samples = samples, format = "rds"))
}
with_predict <- function(predict, code) {
  old <- predict_rows
  on.exit(assign("predict_rows", old, envir = environment(score)))
  assign("predict_rows", predict, envir = environment(score))
  code
}
ask <- function(text, predict, kind = "predict") {
  with_predict(predict, answer_scoring(service(NULL), config, kind, charToRaw(text)))
}
double_it <- function(model, rows, parameters) rows$speed * 2

test_that("predictions come back in order, with the model's name", {
  answer <- ask('{"instances": [[1], [2]]}', double_it)
  expect_equal(answer$json, '{"predictions":[2.0,4.0],"model":"cars","version":"1"}')
  expect_named(answer$timing, c("parse", "predict", "render"))
})

test_that("no rows are no work for the model", {
  expect_match(ask('{"instances": []}', function(...) stop("called"))$json, '"predictions":\\[\\]')
})

test_that("a model's error is a 500 whose text is for the log, without arguments", {
  answer <- ask('{"instances": [[41]]}', function(model, rows, parameters) do.call(stop, list("broken inside")))
  expect_equal(answer$problem$status, 500L)
  expect_no_match(conditionMessage(answer$problem), "broken")
  expect_match(answer$stack, "broken inside")
  expect_no_match(answer$stack, "41")
  wrong_count <- ask('{"instances": [[1], [2]]}', function(...) 1)
  expect_match(wrong_count$stack, "1 predictions for 2 rows")
})

test_that("the caller's mistake in predict.R is a 422", {
  answer <- ask('{"instances": [[1]]}', function(model, rows, parameters) {
    as_levels(transform(rows, speed = "fast"), "speed", "slow")
  })
  expect_equal(answer$problem[c("status", "code")], list(status = 422L, code = "invalid-instances"))
})


test_that("all samples are compared with what was published", {
  sample <- list(request = list(instances = list(list(1.5))), response = list(predictions = list(3)))
  other <- list(request = list(instances = list(list(2))), response = list(predictions = list(4)))
  checked <- function(...) with_predict(double_it, rehearse(service(NULL, list(...)), config))
  expect_equal(checked(sample, other)$good$rows, data.frame(speed = 1.5))
  other$response$predictions <- list(4.1)
  expect_error(checked(sample, other), "sample 2 came out differently")
  fails <- function(...) stop("no")
  expect_error(with_predict(fails, rehearse(service(NULL, list(sample)), config)), "could not be scored")
})

test_that("close is close", {
  expect_true(is_close(list(1, "a", NULL, list(x = 1)), list(1 + 1e-9, "a", NULL, list(x = 1L)), 1e-6))
  expect_true(is_close(1e9, 1e9 + 1, 1e-6))
  expect_true(is_close(list(), list(), 0))
  for (pair in list(list(1, 1.1), list("a", "b"), list(list(1), list(1, 2)), list(list(x = 1), list(y = 1)),
                    list(TRUE, 1), list(NULL, 0), list(list(), structure(list(), names = character())))) {
    expect_false(isTRUE(is_close(pair[[1]], pair[[2]], 1e-6)))
  }
})

test_that("the API is described with the model's fields", {
  api <- jsonlite::parse_json(describe_api(config, service(NULL)$manifest))
  expect_equal(api$openapi, "3.1.0")
  expect_equal(api$components$schemas$Instance$oneOf[[1]]$properties$speed$type, list("number", "null"))
  expect_true("/v2/models/cars/infer" %in% names(api$paths))
})

test_that("a row that gets no prediction is no good row", {
  dated <- data.frame(day = as.Date("2026-01-01") + 0:9, y = as.numeric(0:9))
  text <- list(tensor("day", "BYTES"))
  expect_error(suppressWarnings(sought_row(service(lm(y ~ as.numeric(day), dated), inputs = text))), "it predicts NA")
  expect_identical(sought_row(service(lm(dist ~ log(speed), cars)))$rows$speed, 1)
})
