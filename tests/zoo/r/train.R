#!/usr/bin/env Rscript
# Train the kinds of kinds.R and write, for each, the model and what R itself predicts.
#
#     Rscript --vanilla tests/zoo/r/train.R OUT [KIND...]
#
# Nothing here knows of CHIPS. OUT/NUMBER/ gets model.rds and truth.json; OUT/made_with.json the versions.
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[[1]]))
source(file.path(here, "kinds.R"), encoding = "UTF-8")
arguments <- commandArgs(trailingOnly = TRUE)
out <- arguments[[1]]
wanted <- arguments[-1]
options(warn = -1)

write_json <- function(value, file) {
  text <- jsonlite::toJSON(value, auto_unbox = TRUE, digits = I(17), na = "null", null = "null", POSIXt = "ISO8601")
  writeLines(enc2utf8(text), file, useBytes = TRUE)
}

# A value for each row, or an array of them, or an object by output.
as_rows <- function(answer, outputs) {
  if (is.factor(answer)) answer <- as.character(answer)
  plain <- function(x) ifelse(is.finite(x) | is.character(x), x, NA)
  if (length(dim(answer)) < 2L) {
    return(lapply(unname(plain(as.vector(answer))), identity))
  }
  lapply(seq_len(nrow(answer)), function(row) {
    values <- lapply(plain(answer[row, ]), identity)
    if (is.null(outputs)) unname(values) else stats::setNames(values, outputs)
  })
}

# NULL where R has no answer: an error, or no value for the row.
own_answer <- function(answer, row, outputs) {
  given <- tryCatch(answer(row), error = function(e) NULL)
  values <- if (!is.null(given)) tryCatch(as_rows(given, outputs), error = function(e) NULL)
  list(given = length(values) == 1L, value = if (length(values) == 1L) values[[1]])
}

datatype <- function(column) {
  if (is.factor(column) || is.character(column)) "BYTES" else
    if (is.logical(column)) "BOOL" else if (is.integer(column)) "INT32" else "FP64"
}

probes <- function(it) {
  row <- it$rows[1, , drop = FALSE]
  probe <- function(question, field, value) {
    changed <- row
    if (is.factor(changed[[field]]) && !is.na(value)) changed[[field]] <- as.character(changed[[field]])
    changed[[field]][1] <- value
    own <- own_answer(it$answer, changed, it$outputs)
    c(list(question = question, field = field, row = unname(lapply(changed, as_cell))), own)
  }
  found <- list()
  for (field in names(row)) {
    found <- c(found, list(probe("null", field, NA)))
    given <- it$unseen[[field]]
    if (is.null(given) && datatype(row[[field]]) == "BYTES") given <- "never seen"
    if (!is.null(given)) found <- c(found, list(probe("unseen", field, given)))
    if (datatype(row[[field]]) == "FP64" && !"out_of_range" %in% it$draws_lots) found <- c(found, list(probe("out_of_range", field, 1e39)))
  }
  found
}

as_cell <- function(x) if (is.factor(x)) as.character(x) else unname(x)

describe <- function(it) {
  inputs <- lapply(names(it$rows), function(name) {
    column <- it$rows[[name]]
    input <- list(name = name, datatype = datatype(column), shape = list(-1L))
    if (name %in% it$categories) input$categories <- as.list(levels(column))
    input
  })
  truth <- list(
    inputs = inputs, outputs = it$outputs, width = it$width, runtime = as.list(it$runtime), refused = it$refused,
    note = if (is.null(it$note)) "" else it$note,
    rows = lapply(seq_len(7L), function(row) unname(lapply(it$rows[row, , drop = FALSE], as_cell)))
  )
  if (!is.null(it$refused)) {
    return(truth)
  }
  truth$predictions <- as_rows(it$answer(it$rows), it$outputs)
  if (!is.null(it$probabilities)) {
    given <- it$probabilities(it$rows)
    truth$classes <- as.list(colnames(given))
    truth$probabilities <- as_rows(given, NULL)
  }
  c(truth, list(probes = probes(it)))
}

packages <- "stats"
for (at in seq_along(kinds)) {
  it <- kinds[[at]]
  if (length(wanted) && !it$kind %in% wanted) next
  folder <- file.path(out, sprintf("%03d", at))
  dir.create(folder, recursive = TRUE, showWarnings = FALSE)
  missing <- it$needs[!vapply(it$needs, requireNamespace, NA, quietly = TRUE)]
  truth <- c(list(family = it$family, kind = it$kind), if (length(missing)) {
    list(skipped = paste("not installed:", toString(missing)))
  } else {
    packages <- c(packages, it$needs)
    made <- suppressWarnings(it$make())
    saveRDS(made$model, file.path(folder, "model.rds"))
    describe(made)
  })
  write_json(truth, file.path(folder, "truth.json"))
}
version <- function(package) paste(unlist(utils::packageVersion(package))[1:2], collapse = ".")
packages <- sort(unique(setdiff(packages, "stats")))
versions <- stats::setNames(lapply(packages, version), packages)
write_json(c(list(R = as.character(getRversion())), versions), file.path(out, "made_with.json"))
