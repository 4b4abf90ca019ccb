# The models of benchmarks.backends.r_alternatives, published, and what they predict for given rows: BACKEND FOLDER
arguments <- commandArgs(TRUE)
for (file in sort(Sys.glob(file.path(arguments[[1]], "R", "*.R")))) source(file)
folder <- arguments[[2]]
rows <- as.data.frame(jsonlite::fromJSON(file.path(folder, "rows.json")))
set.seed(1)
seen <- as.data.frame(matrix(rnorm(8 * 400), ncol = 8))
names(seen) <- names(rows)
seen$y <- as.matrix(seen) %*% 1:8 + rnorm(400)
seen$y <- as.numeric(seen$y)
models <- list(lm = lm(y ~ ., seen), ranger = ranger::ranger(y ~ ., seen, num.trees = 50L, num.threads = 1L))
for (name in names(models)) {
  inputs <- lapply(names(rows), chips_tensor)
  chips_publish(models[[name]], name, "1", inputs, list(chips_tensor("y")), store = file.path(folder, "store"))
  found <- predict(models[[name]], rows)
  writeLines(jsonlite::toJSON(if (is.list(found)) found$predictions else unname(found), digits = NA),
             file.path(folder, paste0(name, ".json")))
  saveRDS(models[[name]], file.path(folder, paste0(name, ".rds")))
}
