# Requests at random, read by the compiled part and by the R code: what the first reads, the second must read alike.
#     Rscript tests/fuzz/fuzz.R [SECONDS] [SEED] [LIBRARY]
home <- file.path(dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[[1]])), "..", "..")
for (file in sort(Sys.glob(file.path(home, "R", "*.R")))) source(file, keep.source = FALSE)
source(file.path(home, "tests", "fuzz", "requests.R"))
arguments <- commandArgs(TRUE)
seconds <- if (length(arguments)) as.numeric(arguments[[1]]) else 60
seed <- if (length(arguments) > 1L) as.integer(arguments[[2]]) else as.integer(Sys.time())
if (length(arguments) > 2L) load_compiled(arguments[[3]]) else stopifnot(isTRUE(use_compiled(home)))
set.seed(seed)
cat("seed", seed, "\n")
tally <- c(requests = 0, read = 0, refused = 0)
until <- Sys.time() + seconds
while (Sys.time() < until) {
  outcome <- compare_readers(random_request())
  tally[["requests"]] <- tally[["requests"]] + 1
  tally[[outcome]] <- tally[[outcome]] + 1
  compare_writers(random_values())
}
print(tally)
