# A formula keeps the environment that it was written in, and with it whatever a test leaves there.
fitted <- stats::lm(stats::as.formula("dist ~ speed", globalenv()), cars)
publish_here <- function(store, model = fitted, version = "1", ...) {
  suppressMessages(chips_publish(model, "cars", version, list(chips_tensor("speed")), list(chips_tensor("dist")),
                                 store = store, by = "ana", ...))
}
wanting <- function(model = "", version = "", digest = "") {
  list(model = model, version = version, artifact_digest = digest)
}
start <- function(address, log = quiet_log(), wanted = wanting("cars", "1")) {
  obtain(address, tempfile("cache"), wanted, log)
}
exit_of <- function(expr) {
  error <- tryCatch(expr, chips_start_error = identity)
  expect_s3_class(error, "chips_start_error")
  error
}

test_that("what is published is obtained, from a path and a file: address", {
  store <- withr::local_tempdir()
  target <- publish_here(store)
  found <- start(target)
  expect_equal(found$folder, target)
  model <- file.path(target, "model.rds")
  bytes <- readBin(model, "raw", file.size(model))
  expect_equal(found$manifest$files[[1]]$sha256, paste(openssl::sha256(bytes)))
  expect_equal(start(paste0("file://", target))$digest, found$digest)
  expect_equal(found$digest, paste0("sha256:", sha256_of(file.path(target, "manifest.json"))))
  expect_s3_class(load_model(found$folder, found$manifest), "lm")
})

test_that("files lie where they lay when they were published, also in a copy of a bucket", {
  target <- publish_here(withr::local_tempdir())
  manifest <- file.path(target, "manifest.json")
  prefix <- substr(sha256_of(file.path(target, "model.rds")), 1L, 16L)
  dir.create(file.path(target, prefix))
  file.rename(file.path(target, "model.rds"), file.path(target, prefix, "model.rds"))
  writeLines(sub("model[.]rds", paste0(prefix, "/model.rds"), readLines(manifest)), manifest)
  found <- start(target)
  expect_equal(list.files(found$folder, recursive = TRUE), "model.rds")
  expect_s3_class(load_model(found$folder, found$manifest), "lm")
  writeLines("x", file.path(target, prefix, "model.rds"))
  expect_equal(exit_of(start(target))$exit_code, 65L)
})

test_that("a version never changes, and the same again is no mistake", {
  store <- withr::local_tempdir()
  publish_here(store)
  before <- tools::md5sum(list.files(store, recursive = TRUE, full.names = TRUE))
  publish_here(store)
  expect_error(publish_here(store, stats::lm(dist ~ 1, cars)), "never changes")
  expect_equal(tools::md5sum(list.files(store, recursive = TRUE, full.names = TRUE)), before)
  expect_equal(list.files(file.path(store, "cars"), all.files = TRUE, no.. = TRUE), "1")
})

test_that("what is not what was published stops the start, each with its code", {
  store <- withr::local_tempdir()
  target <- publish_here(store)
  model <- file.path(target, "model.rds")
  manifest <- file.path(target, "manifest.json")
  whole <- readBin(model, "raw", file.size(model))
  for (changed in list(rev(whole), utils::head(whole, -1L), c(whole, as.raw(0L)), raw())) {
    writeBin(changed, model)
    error <- exit_of(start(target))
    expect_equal(error$exit_code, 65L)
    expect_match(conditionMessage(error), "not the file that was published")
  }
  unlink(model)
  expect_equal(exit_of(start(target))$exit_code, 66L)
  writeBin(whole, model)
  expect_equal(exit_of(start(target, wanted = wanting("cars", "2")))$exit_code, 65L)
  whichever <- start(target, wanted = wanting())
  expect_equal(whichever$manifest$version, "1")
  expect_equal(start(target, wanted = wanting(digest = whichever$digest))$digest, whichever$digest)
  other <- exit_of(start(target, wanted = wanting(digest = chartr("0123", "1230", whichever$digest))))
  expect_equal(other$exit_code, 65L)
  expect_match(conditionMessage(other), "CHIPS_ARTIFACT_DIGEST")
  text <- readLines(manifest)
  for (change in list(c("model[.]rds", "../model.rds"), c("model[.]rds", "/etc/passwd"),
                      c("\"schema\": 1", "\"schema\": 2"),
                      c("\"files\"", "\"flies\""), c("^\\{", "["))) {
    writeLines(sub(change[[1]], change[[2]], text), manifest)
    error <- exit_of(start(target))
    expect_equal(error$exit_code, 65L)
    expect_match(conditionMessage(error), "manifest.json")
  }
  unlink(manifest)
  expect_equal(exit_of(start(target))$exit_code, 66L)
  expect_equal(exit_of(start("s3://bucket/x"))$exit_code, 66L)
  expect_equal(exit_of(start("gs://"))$exit_code, 66L)
})

test_that("publishing needs a name, a version, a store and an RDS file", {
  store <- withr::local_tempdir()
  expect_error(chips_publish(1, "A b", "1", store = store), "no name")
  expect_error(chips_publish(1, "ab", "1 2", store = store), "no version")
  expect_error(chips_publish(1, "ab", "1", store = ""), "store")
  folder <- withr::local_tempdir()
  expect_error(chips_publish(folder, "ab", "1", store = store), "no files")
  writeLines("x", file.path(folder, "model.bin"))
  expect_error(chips_publish(folder, "ab", "1", store = store), "chips publish")
})

test_that("retries are with jitter, end, and begin anew after progress", {
  waits <- numeric()
  sleep <- function(seconds) waits <<- c(waits, seconds)
  log <- quiet_log()
  tries <- 0L
  error <- exit_of(patiently("x", sleep, function() {
    tries <<- tries + 1L
    stop("no answer")
  }, log = log))
  expect_equal(c(tries, error$exit_code), c(attempts_without_progress, 69L))
  expect_true(all(waits >= 0 & waits <= first_delay_s * 2^seq_along(waits)))
  expect_length(log$lines(), 5L)
  size <- 0
  expect_equal(patiently("x", sleep, progress = function() size, call = function() {
    size <<- size + 1
    if (size < 30) stop("broke off")
    "done"
  }), "done")
})

test_that("progress is one line each ten percent", {
  log <- quiet_log()
  progress <- tenths(1000, log)
  for (i in 1:40) progress(25)
  expect_equal(log$lines(), sprintf("fetched %d %% of the artifact", 1:10 * 10))
})

test_that("a model that ranks rows is published to a bucket as such", {
  bin <- withr::local_tempdir()
  writeLines(c("#!/bin/sh", sprintf("echo \"$@\" > %s/asked", shQuote(bin))), file.path(bin, "chips"))
  Sys.chmod(file.path(bin, "chips"), "0755")
  withr::local_path(bin)
  publish_here("gs://models", rows = "together")
  expect_match(readLines(file.path(bin, "asked")), "--rows together", fixed = TRUE)
})
