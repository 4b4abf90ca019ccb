# The R model called without a backend: FOLDER SECONDS ROWS... prints the median milliseconds for each number of rows.
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[[1]]))
home <- file.path(here, "..", "..", "backends", "r")
for (file in c(sort(Sys.glob(file.path(home, "R", "*.R"))), file.path(home, "predict.R"))) {
  source(file, keep.source = FALSE, encoding = "UTF-8")
}
arguments <- commandArgs(TRUE)
path <- file.path(arguments[[1]], "manifest.json")
manifest <- parse_manifest(readBin(path, "raw", file.size(path)))
model <- load_model(arguments[[1]], manifest)
medians <- vapply(as.integer(arguments[-(1:2)]), function(count) {
  body <- sprintf('{"instances": [%s]}', paste(rep("[1.5, 2, 3]", count), collapse = ","))
  rows <- read_instances(parse_body(charToRaw(body)), manifest$signature$inputs)$rows
  for (i in 1:20) predict_rows(model, rows, list())
  taken <- numeric()
  end <- clock_ms() + 1000 * as.numeric(arguments[[2]])
  while ((began <- clock_ms()) < end) {
    predict_rows(model, rows, list())
    taken[[length(taken) + 1L]] <- clock_ms() - began
  }
  stats::median(taken)
}, 0)
cat("[", paste(sprintf("%.6f", medians), collapse = ", "), "]\n", sep = "")
