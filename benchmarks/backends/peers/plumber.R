# What an R user writes: plumber, its JSON parser and its serializer. MODEL.rds PORT
library(plumber)
arguments <- commandArgs(TRUE)
model <- readRDS(arguments[[1]])
if (inherits(model, "ranger")) library(ranger)
score <- function(req) {
  rows <- as.data.frame(jsonlite::fromJSON(req$postBody)$instances)
  found <- if (inherits(model, "ranger")) predict(model, rows, num.threads = 1L)$predictions else predict(model, rows)
  list(predictions = as.numeric(found))
}
served <- pr_post(pr(), "/predict", score, serializer = serializer_json(digits = NA))
pr_run(served, host = "127.0.0.1", port = as.integer(arguments[[2]]), docs = FALSE, quiet = TRUE)
