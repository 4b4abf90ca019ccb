# The model predicts what it did when it was trained. Make these tests your own.
library(testthat)
for (file in sort(Sys.glob("R/*.R"))) source(file)
source("predict.R")

test_that("the samples come out as in training", {
  trained <- tempfile()
  status <- system2("Rscript", c("examples/co2/train.R", trained), stdout = FALSE)
  expect_identical(status, 0L)
  model <- load_model(trained, list(format = "rds", files = list(list(path = "model.rds"))))
  samples <- jsonlite::fromJSON(file.path(trained, "samples.json"), simplifyVector = FALSE)
  for (sample in samples) {
    rows <- do.call(rbind, lapply(sample$request$instances, as.data.frame))
    expect_equal(as.numeric(predict_rows(model, rows, list())), unlist(sample$response$predictions), tolerance = 1e-6)
  }
})
