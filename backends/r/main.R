#!/usr/bin/env Rscript
# Entry point: Rscript main.R. Anywhere, since it finds R/ and predict.R beside itself.
options(warn = 1, keep.source = FALSE)
home <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[[1]]))
for (file in c(sort(Sys.glob(file.path(home, "R", "*.R"))), file.path(home, "predict.R"))) {
  source(file, keep.source = FALSE, encoding = "UTF-8")
}
quit(save = "no", status = main())
