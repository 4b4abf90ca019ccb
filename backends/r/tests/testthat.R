# Rscript tests/testthat.R, from backends/r or anywhere.
library(testthat)
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[[1]]))
test_dir(file.path(here, "testthat"), reporter = "summary", stop_on_failure = TRUE, stop_on_warning = TRUE)
