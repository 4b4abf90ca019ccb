#!/usr/bin/env Rscript
# Entry point: Rscript main.R. Anywhere, since it finds R/ and predict.R next to itself.
options(warn = 1, keep.source = FALSE)
home <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[[1]]))
# Not in the global environment: a model's formula looks there for the functions of the session that trained it, and
# must not find one of ours that has the same name.
backend <- new.env(parent = globalenv())
for (file in c(sort(Sys.glob(file.path(home, "R", "*.R"))), file.path(home, "predict.R"))) {
  sys.source(file, backend, keep.source = FALSE)
}
# A person's own code replaces what has the same name; that the file is there is checked with the other settings.
own <- Sys.getenv("CHIPS_PREDICT")
if (file.exists(own)) sys.source(own, backend, chdir = TRUE, keep.source = FALSE)
rm(file, own)
quit(save = "no", status = backend$main(home))
