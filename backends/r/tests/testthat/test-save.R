skip_if_not(nzchar(Sys.which("Rscript")), "there is no Rscript on the PATH")

forget_compiled <- function() rm(list = ls(compiled), envir = compiled)

seen <- data.frame(
  kind = rep(c("a", "b"), 15), size = factor(rep(c("s", "m", "l"), 10), c("s", "m", "l")), n = 1:30, x = sin(1:30),
  big = rep(c(TRUE, FALSE, FALSE, TRUE, FALSE), 6), y = as.numeric(30:1) + rep(c(0, 3), 15)
)
fitted_to <- function(formula, data = seen) lm(stats::as.formula(formula, globalenv()), data)

save_to <- function(folder, model, example, ..., lines = FALSE) {
  said <- textConnection("said_lines", "w", local = TRUE)
  on.exit({
    close(said)
    forget_compiled()
  })
  saved <- chips_save(model, folder, example, ..., backend = home, out = said)
  if (lines) said_lines else saved
}

test_that("a model with texts, factors, integers and booleans is saved, and says what was understood", {
  folder <- withr::local_tempdir()
  model <- fitted_to("y ~ kind + size + n + x + big")
  seen$x[[4]] <- NA
  said <- save_to(folder, model, seen, lines = TRUE)
  expect_match(said[[1]], "INPUT +DATATYPE +VALUES")
  expect_match(paste(said, collapse = "\n"), "size +BYTES +3 categories: s, m, l")
  expect_match(paste(said, collapse = "\n"), "x +FP64 +.*1 of 30 missing")
  expect_match(paste(said, collapse = "\n"), "left out  y: the model does not take it")
  signature <- jsonlite::parse_json(file(file.path(folder, "signature.json")))
  expect_equal(vapply(signature$inputs, `[[`, "", "datatype"), c("BYTES", "BYTES", "INT32", "FP64", "BOOL"))
  expect_equal(unlist(signature$inputs[[2]]$categories), c("s", "m", "l"))
  expect_equal(unlist(signature$inputs[[1]]$categories), c("a", "b"), label = "what the model knows of a text")
  expect_match(paste(said, collapse = "\n"), "kind +BYTES +2 categories: a, b; the model's; others are refused")
  samples <- jsonlite::parse_json(file(file.path(folder, "samples.json")))
  expect_length(samples, 5L)
  rows <- lapply(samples, function(sample) sample$request$instances[[1]])
  expect_setequal(vapply(rows, `[[`, "", "size"), c("s", "m", "l"))
  expect_true(any(vapply(rows, function(row) is.null(row$x), NA)))
  expect_equal(samples[[1]]$response$predictions[[1]], unname(predict(model, seen[1, ])))
})

test_that("what was saved is what chips_publish() takes, and a backend serves", {
  folder <- withr::local_tempdir()
  saved <- save_to(folder, fitted_to("y ~ kind + n"), seen)
  expect_match(saved$command, "^chips publish [^ ]+ --model NAME --version 1$")
  store <- withr::local_tempdir()
  suppressMessages(chips_publish(folder, "m", "1", store = store))
  config <- read_config(list(CHIPS_ARTIFACT = file.path(store, "m", "1"),
                             CHIPS_CACHE_DIR = file.path(store, "cache")))
  service <- load_service(config, quiet_log())
  expect_setequal(vapply(service$manifest$files, `[[`, "", "path"), c("card.md", "model.rds"))
  expect_length(service$manifest$samples, 5L)
  config[c("model", "version")] <- service$manifest[c("model", "version")]
  expect_null(rehearse(service, config)$classes)
})

test_that("dates and times travel as texts, where the model keeps its data", {
  dated <- data.frame(day = as.Date("2026-01-01") + 0:9, y = as.numeric(1:10)^2,
                      at = as.POSIXct("2026-01-01 10:00:00.5", tz = "UTC") + 3600 * 0:9)
  for (input in c("day", "at")) {
    saved <- save_to(withr::local_tempdir(), fitted_to(paste("y ~", input), dated), dated)
    expect_equal(saved$signature$inputs[[1]]$datatype, "BYTES")
  }
  bare <- fitted_to("y ~ day", dated)
  bare$model <- NULL
  expect_error(save_to(withr::local_tempdir(), bare, dated), "as_day", class = "chips_cannot_save")
})

test_that("a classifier, a matrix answer and missing values that a model does not take", {
  skip_if_not_installed("ranger")
  forest <- ranger::ranger(Species ~ ., iris, num.trees = 5L, seed = 1L, num.threads = 1L)
  holes <- iris
  holes$Sepal.Width[c(2, 60)] <- NA
  said <- save_to(withr::local_tempdir(), forest, holes, lines = TRUE)
  expect_match(paste(said, collapse = "\n"), "output  prediction BYTES")
  expect_match(paste(said, collapse = "\n"), "ranger [0-9.]+")
  expect_match(paste(said, collapse = "\n"), "takes no row with a missing value")
  shares <- ranger::ranger(Species ~ ., iris, num.trees = 5L, seed = 1L, num.threads = 1L, probability = TRUE)
  saved <- save_to(withr::local_tempdir(), shares, iris)
  expect_equal(as.integer(saved$signature$outputs[[1]]$shape), c(-1L, 3L))
})

test_that("what a backend could not serve is refused, and nothing of an earlier save is lost", {
  folder <- withr::local_tempdir()
  save_to(folder, fitted_to("y ~ n"), seen)
  before <- tools::md5sum(list.files(folder, full.names = TRUE))
  expect_error(save_to(folder, fitted_to("y ~ x"), seen), "already has model.rds.*overwrite",
               class = "chips_cannot_save")
  withr::defer(rm("only_here", envir = globalenv()))
  assign("only_here", function(x) x + 1, globalenv())
  expect_error(save_to(folder, fitted_to("y ~ only_here(n)"), seen, overwrite = TRUE), "only_here.*this session",
               class = "chips_cannot_save")
  expect_equal(tools::md5sum(list.files(folder, full.names = TRUE)), before)
  expect_equal(list.files(folder, all.files = TRUE, no.. = TRUE),
               c("card.md", "model.rds", "runtime.json", "samples.json", "signature.json"))
})

test_that("a draft of the model card is written where there is none, and names say nothing else than names", {
  folder <- withr::local_tempdir()
  save_to(folder, fitted_to("y ~ n"), seen)
  card <- readLines(file.path(folder, "card.md"))
  expect_equal(sub("## ", "", grep("^## ", card, value = TRUE)), c("Owner", "Purpose", "Data", "Limits", "Metrics"))
  expect_length(grep("^TODO: ", card), 5L)
  expect_match(paste(card, collapse = "\n"), "Inputs: `n` INT32")
  writeLines("mine", file.path(folder, "card.md"))
  writeLines("1", file.path(folder, "data.csv"))
  said <- save_to(folder, fitted_to("y ~ n"), seen, overwrite = TRUE, lines = TRUE)
  expect_match(paste(said, collapse = "\n"), "card.md was kept.*note    data.csv in .* would be published too")
  expect_equal(readLines(file.path(folder, "card.md")), "mine")
  expect_equal(card_name("a`b\n## Owner\u202e"), "a'b\\u000a## Owner\\u202e")
  many <- rep(list(list(name = strrep("x", 90L), datatype = "FP64")), 31L)
  expect_match(card_columns(many), "^`x{59}\u2026` FP64, .* and 1 more$")
})

test_that("a model whose rows depend on each other is refused", {
  ranked <- seen
  model <- fitted_to("y ~ I(n - mean(n))", ranked)
  expect_error(save_to(withr::local_tempdir(), model, ranked), "depends on the rows next to it|differently",
               class = "chips_cannot_save")
})

test_that("examples that no signature describes are refused with the reason", {
  refused <- function(example, why) {
    expect_error(save_to(withr::local_tempdir(), list(), example), why, class = "chips_cannot_save")
  }
  refused(seen$x, "not a table")
  refused(seen[0, ], "no rows")
  refused(stats::setNames(seen[1:2], c("a", "a")), "the name a; rename")
  refused(data.frame(z = complex(3)), "holds values of class complex")
  refused(data.frame(z = c(NA_real_, Inf)), "every value of z is missing")
  expect_error(save_to(withr::local_tempdir(), fitted_to("y ~ n + x"), seen["n"]), "needs the column x")
})

test_that("a thousand columns have a signature and samples", {
  wide <- as.data.frame(matrix(round(rnorm(20000), 6), 20))
  columns <- columns_of(wide)
  expect_length(columns, 1000L)
  expect_equal(covering_rows(columns, 5L), 1:5)
  text <- pretty_json(list(inputs = unname(lapply(columns, column_tensor))))
  expect_equal(jsonlite::parse_json(text)$inputs[[1000]]$name, "V1000")
})

test_that("packages that the model does not name itself are written down, and published", {
  folder <- withr::local_tempdir()
  store <- withr::local_tempdir()
  save_to(folder, fitted_to("y ~ n"), seen, packages = "splines")
  expect_named(jsonlite::parse_json(file(file.path(folder, "runtime.json"))), c("R", "splines"))
  suppressMessages(chips_publish(folder, "m", "1", store = store))
  manifest <- jsonlite::parse_json(file(file.path(store, "m", "1", "manifest.json")))
  expect_named(manifest$runtime, c("R", "splines"))
})

test_that("the training data in figures: nothing of it points to a single row", {
  folder <- withr::local_tempdir()
  training <- seen[rep(1:30, 700), ]
  training$kind[1:9] <- "rare"
  training$x[1:5] <- NA
  model <- fitted_to("y ~ kind + size + n + x + big", training)
  said <- save_to(folder, model, utils::head(training, 50L), training = training, lines = TRUE)
  expect_match(paste(said, collapse = "\n"), "baseline.json has each column in figures")
  expect_match(paste(readLines(file.path(folder, "card.md")), collapse = "\n"), "Trained on 21000 rows")
  found <- jsonlite::parse_json(file(file.path(folder, "baseline.json")))
  expect_equal(found[c("schema", "rows", "least_count")], list(schema = 1L, rows = 21000L, least_count = 10L))
  expect_setequal(names(found$inputs$kind$frequent), c("a", "b"))
  expect_equal(found$inputs$kind$other, 9L)
  expect_setequal(names(found$inputs$big$frequent), c("true", "false"))
  expect_equal(c(found$inputs$x$count, found$inputs$x$missing), c(20995L, 5L))
  expect_equal(sum(unlist(found$inputs$n$quantiles$positive)), 21000L)
  predicted <- found$outputs$prediction
  expect_equal(predicted$count + predicted$missing, 7000L)
  save_to(folder, model, utils::head(training, 50L), overwrite = TRUE)
  expect_false(file.exists(file.path(folder, "baseline.json")))
})

test_that("training data that is not of the example's kind is refused", {
  refused <- function(training, why) {
    expect_error(save_to(withr::local_tempdir(), fitted_to("y ~ n"), seen, training = training), why,
                 class = "chips_cannot_save")
  }
  refused(seen["x"], "training has no column n")
  refused(data.frame(n = c("1", "2")), "n is INT32 in the example, and of class character in training")
  refused(seen[0L, ], "no rows")
})

test_that("a sketch has no more bins than asked for, and zeros of all kinds are zero", {
  expect_equal(json_value(sketch_of(c(0, -0, 5e-324, -1, 1, 1.02, NaN, Inf), 256)),
               '{"gamma":1.02020202020202,"zero":3,"negative":{"0":1},"positive":{"0":1,"1":1}}')
  many <- sketch_of(10^seq(-300, 300, length.out = 5000), 32)
  expect_lte(length(many$positive), 32L)
  expect_equal(sum(unlist(many$positive)), 5000L)
  squared <- log2(log(many$gamma) / log(baseline_gamma))
  expect_equal(squared, round(squared))
})

test_that("texts whose levels the model does not hold are factors in the example, and may be texts in training", {
  skip_if_not_installed("ranger")
  forest <- ranger::ranger(y ~ kind + n, seen, num.trees = 5L, seed = 1L, num.threads = 1L)
  expect_error(save_to(withr::local_tempdir(), forest, seen), "example\\$kind <- factor\\(example\\$kind",
               class = "chips_cannot_save")
  known <- seen
  known$kind <- factor(known$kind, levels = sort(unique(seen$kind)))
  folder <- withr::local_tempdir()
  saved <- save_to(folder, forest, known, training = seen)
  expect_equal(as.character(saved$signature$inputs[[1L]]$categories), c("a", "b"))
  found <- jsonlite::parse_json(file(file.path(folder, "baseline.json")))
  expect_equal(found$inputs$kind$frequent, list(a = 15L, b = 15L))
  samples <- jsonlite::parse_json(file(file.path(folder, "samples.json")))
  rows <- do.call(rbind, lapply(samples, function(sample) as.data.frame(sample$request$instances[[1L]])))
  rows$kind <- factor(rows$kind, c("a", "b"))
  expect_equal(vapply(samples, function(sample) sample$response$predictions[[1L]], 0),
               predict(forest, rows, num.threads = 1L)$predictions)
})

test_that("what stands behind a dollar sign in a formula is no column", {
  formula <- ~ as.POSIXlt(when)$hour + poly(x, 2)[, 1] + `a b` * I(z > cut@off)
  expect_identical(columns_in(formula), c("when", "x", "a b", "z", "cut"))
  model <- lm(dist ~ as.list(cars)$speed + speed, cars)
  expect_identical(inputs_of_model(model, "speed"), "speed")
  sum_of_columns <- stats::delete.response(stats::terms(y ~ x + log(n) + plan))
  expect_identical(columns_in(sum_of_columns), c("x", "n", "plan"))
})

test_that("levels and texts that JSON cannot hold are refused in words", {
  expect_error(columns_of(data.frame(a = addNA(factor(c("x", NA))))), "a has NA among its levels")
  expect_error(columns_of(data.frame(a = "\xe9t\xe9")), "a holds a text that is not valid")
  expect_error(columns_of(data.frame(a = factor("\xe9t\xe9"))), "a holds a text that is not valid")
  expect_identical(columns_of(data.frame(a = iconv("\u00e9t\u00e9", "UTF-8", "latin1")))[[1]]$datatype, "BYTES")
})
