# chips_save(): from a trained model to a folder that `chips publish` takes. It needs the other files of R/, which the
# tutorial shows how to source.

save_tolerance <- 1e-6 # of the samples: absolute, or relative to the larger number

# The backend's folder: where this file was sourced from.
chips_home <- local({
  sourced <- lapply(sys.frames(), function(frame) {
    c(get0("ofile", frame, inherits = FALSE), get0("file", frame, inherits = FALSE))
  })
  files <- Filter(function(file) is.character(file) && basename(file) == "save.R", unlist(sourced, recursive = FALSE))
  if (length(files)) dirname(dirname(normalizePath(files[[length(files)]]))) else ""
})

#' Write a trained model into `folder`, with its signature and samples, and check that a backend predicts the same.
#'
#' Writes model.rds, signature.json (names, datatypes, categories), samples.json (a few rows with the model's own
#' answers), runtime.json (packages and their versions) and, where the training data is given, baseline.json (its
#' statistics). Then a backend in a process of its own loads them and scores the samples, each alone and all together:
#' what cannot be served exactly as it predicts here is refused here. Nothing of an earlier `chips_save()` is lost then.
#' Where there is no card.md, a draft of the model card is written.
#'
#' @param model An R object that predict.R can predict with.
#' @param example Rows as the model takes them, 10 to 1000 of the training data: a data frame, or a matrix of numbers.
#'   Columns that the model's formula does not name are left out.
#' @param samples How many rows of the example to publish with their answers; they cover missing values and categories
#'   first.
#' @param training All of the training data, in the form of `example`; baseline.json then describes its columns and the
#'   predictions for them, without any row.
#' @param overwrite Whether to replace the files of an earlier `chips_save()`.
#' @param packages Packages that the model needs; those that its classes and formulas name are found without.
#' @param backend The folder of the backend that will serve it, with main.R and predict.R.
#' @param predict A file with code of your own around the model, which replaces functions of the backend's predict.R;
#'   where there is no such file, the backend's own is used.
#' @param out A connection for the summary.
#' @return A list of `folder`, `format`, `signature`, `samples` (how many), `runtime` (packages and their versions) and
#'   `command`, which publishes it; invisibly.
chips_save <- function(model, folder, example, training = NULL, samples = 5L, overwrite = FALSE,
                       packages = character(), backend = chips_home, predict = "", out = stdout()) {
  if (samples < 1L) stop_save("samples must be at least 1: a version without samples cannot be checked")
  functions <- backend_functions(backend, predict)
  if (!has_compiled()) use_compiled(backend) # writes wide tables faster
  if (!overwrite) refuse_to_replace(folder)
  example <- as_example(example)
  inputs <- inputs_of_model(model, names(example))
  left_out <- setdiff(names(example), inputs)
  example <- example[inputs]
  columns <- with_known_categories(columns_of(example), model)
  runtime <- runtime_of(unique(c(packages, needed_packages(model, packages))))
  answered <- answer_some(model, example, columns, samples, functions)
  signature <- list(inputs = unname(lapply(columns, column_tensor)), outputs = outputs_of(answered$answer))
  content <- sample_content(columns, answered)
  baseline <- if (!is.null(training)) {
    training_baseline(training, columns, signature$outputs, answered$takes_missing, function(table, at) {
      try_model(model, table, at, functions)
    })
  }
  dir.create(folder, recursive = TRUE, showWarnings = FALSE)
  draft <- tempfile(".draft-", tmpdir = folder)
  dir.create(draft)
  on.exit(unlink(draft, recursive = TRUE))
  saveRDS(model, file.path(draft, "model.rds"))
  texts <- c(signature = pretty_json(signature), samples = pretty_json(content), runtime = pretty_json(runtime),
             baseline = if (!is.null(baseline)) json_value(baseline))
  for (name in names(texts)) write_text(paste0(texts[[name]], "\n"), file.path(draft, paste0(name, ".json")))
  tryCatch(
    check_as_served(draft, texts[["signature"]], content, runtime, backend, predict),
    chips_cannot_save = function(error) stop_save(conditionMessage(error), hint_of(example, columns))
  )
  put_in_place(draft, folder)
  has_card <- file.exists(file.path(folder, "card.md")) # of a person, who knows more
  if (!has_card) {
    card <- draft_card(model, signature, runtime, if (!is.null(training)) nrow(as_example(training)))
    write_text(paste0(card, "\n"), file.path(folder, "card.md"))
  }
  saved <- list(folder = folder, format = "rds", signature = signature, samples = length(content), runtime = runtime,
                command = sprintf("chips publish %s --model NAME --version 1", shell_word(folder)))
  writeLines(c(summary_lines(saved, columns, left_out, answered), folder_notes(folder, has_card)), out)
  invisible(saved)
}

saved_files <- c("model.rds", "signature.json", "samples.json", "runtime.json", "baseline.json")

refuse_to_replace <- function(folder) {
  there <- saved_files[file.exists(file.path(folder, saved_files))]
  if (length(there)) {
    stop_save(folder, " already has ", toString(there), "; pass overwrite = TRUE to replace, or choose another folder")
  }
}

#' The new files, and none that an earlier chips_save() left and that would now be published with them.
put_in_place <- function(draft, folder) {
  written <- intersect(saved_files, list.files(draft))
  if (!all(file.rename(file.path(draft, written), file.path(folder, written)))) {
    stop_save(folder, " cannot be written")
  }
  unlink(file.path(folder, setdiff(saved_files, written)))
}

stop_save <- function(...) {
  stop(structure(class = c("chips_cannot_save", "error", "condition"), list(message = paste0(...), call = NULL)))
}

# As main.R has them, so that nothing of this session is taken for the backend's.
backend_functions <- function(backend, predict = "") {
  files <- c(sort(Sys.glob(file.path(backend, "R", "*.R"))), file.path(backend, "predict.R"))
  if (!nzchar(backend) || !all(file.exists(files))) {
    stop_save("the backend's folder is not known: pass backend = \"backends/r\" of the checkout, or your copy of it")
  }
  functions <- new.env(parent = globalenv())
  for (file in c(files, predict[file.exists(predict)])) sys.source(file, functions, chdir = TRUE)
  functions
}

as_example <- function(example) {
  if (is.matrix(example) || inherits(example, "Matrix")) {
    example <- as.matrix(example)
    if (is.null(colnames(example))) colnames(example) <- paste0("x", seq_len(ncol(example)))
    example <- as.data.frame(example, optional = TRUE)
  }
  if (!is.data.frame(example)) {
    stop_save("the example is not a table; pass a data frame of inputs: df[\"column\"] for a single one")
  }
  if (anyDuplicated(names(example))) {
    stop_save("two columns of the example have the name ", names(example)[duplicated(names(example))][[1]],
              "; rename one")
  }
  example <- as.data.frame(example, optional = TRUE) # a tibble, a data.table
  row.names(example) <- NULL
  example
}

# The variables of a formula; in `as.POSIXlt(when)$hour`, hour is none.
columns_in <- function(expression) {
  if (is.name(expression)) {
    return(setdiff(as.character(expression), ""))
  }
  if (!is.call(expression)) {
    return(character())
  }
  # A list made from a formula is still one of class formula, whose `[` puts a tilde first: so without its attributes.
  attributes(expression) <- NULL
  parts <- as.list(expression)[-1]
  if (as.character(expression[[1]])[[1]] %in% c("$", "@")) parts <- parts[1]
  unique(unlist(lapply(parts, columns_in)))
}

#' The names of the example's columns that the model takes, in their order; all where it does not say.
inputs_of_model <- function(model, given) {
  terms <- model_terms(model)
  needed <- if (!is.null(terms)) {
    columns_in(stats::delete.response(terms))
  } else if (inherits(model, "ranger")) {
    model$forest$independent.variable.names
  }
  known <- Filter(function(name) exists(name, model_environment(model)), setdiff(needed, given))
  missing <- setdiff(needed, c(given, known))
  if (length(missing)) {
    stop_save("the model needs the column ", toString(missing), ", which the example does not have")
  }
  found <- intersect(given, needed)
  if (length(found)) found else given
}

# The levels that the model holds are all that a backend accepts, so the signature names them.
with_known_categories <- function(columns, model) {
  sets <- tryCatch(known_levels(model), error = function(e) list())
  lapply(columns, function(column) {
    own <- sets[[column$name]]$levels
    if (is.null(own) || column$datatype != "BYTES" || anyDuplicated(own)) {
      return(column)
    }
    utils::modifyList(column, list(categories = own, remark = "the model's; others are refused"))
  })
}

# -- the model's own answers

#' The rows to publish, and the model's answer for them. Where it takes no row with a missing value, rows without.
answer_some <- function(model, example, columns, count, functions) {
  ask <- function(at) try_model(model, example, at, functions)
  rows <- covering_rows(columns, count)
  answer <- ask(rows)
  complete <- which(Reduce(`&`, lapply(columns, function(column) !vapply(column$values, is.null, NA))))
  takes_missing <- TRUE
  if (inherits(answer, "error") && length(complete) > 0L && length(complete) < nrow(example)) {
    some <- lapply(columns, function(column) utils::modifyList(column, list(values = column$values[complete])))
    rows <- complete[covering_rows(some, count)]
    answer <- ask(rows)
    takes_missing <- FALSE
  }
  if (inherits(answer, "error")) {
    stop_save(
      "the model does not predict the rows of `example`: ", conditionMessage(answer), ". ",
      hint_of_texts(names(Filter(is.character, example))),
      "Pass rows as the model takes them; predict.R says how predict() is called"
    )
  }
  list(rows = rows, answer = answer, takes_missing = takes_missing)
}

hint_of_texts <- function(names) {
  if (length(names)) {
    sprintf(paste("Texts may have to be factors with all the levels of the training data:",
                  "example$%s <- factor(example$%s, levels = sort(unique(training$%s))). "),
            names[[1L]], names[[1L]], names[[1L]])
  }
}

#' The model's answer for some rows of a table, or the error.
try_model <- function(model, table, at, functions) {
  tryCatch(
    functions$as_answer(functions$predict_rows(model, take_rows(table, at), list()), length(at)), error = identity
  )
}

outputs_of <- function(answer) {
  unname(Map(function(name, part) {
    if (is.list(part)) part <- as_regular(part)
    chips_tensor(name, own_datatype(part), c(-1L, if (is.matrix(part)) ncol(part)))
  }, names(answer), answer))
}

column_tensor <- function(column) chips_tensor(column$name, column$datatype, column$shape, column$categories)

sample_content <- function(columns, answered) {
  predictions <- jsonlite::parse_json(render_predictions(answered$answer, list()))
  unname(Map(function(row, prediction) {
    instance <- lapply(columns, function(column) column$values[[row]])
    list(request = list(instances = list(instance)), response = list(predictions = list(prediction)),
         tolerance = save_tolerance)
  }, answered$rows, predictions))
}

# -- as a backend serves it

#' Load and score it in a process of its own, as main.R does; stops with what that says.
check_as_served <- function(draft, signature, content, runtime, backend, predict) {
  place <- tempfile("chips-save-")
  dir.create(place)
  on.exit(unlink(place, recursive = TRUE))
  file <- file.path(draft, "model.rds")
  # Each sample alone, and all in one request.
  together <- list(
    request = list(instances = lapply(content, function(sample) sample$request$instances[[1]])),
    response = list(predictions = lapply(content, function(sample) sample$response$predictions[[1]])),
    tolerance = save_tolerance
  )
  artifact <- file.path(place, "artifact")
  dir.create(artifact)
  file.copy(file, artifact)
  manifest <- list(schema = 1L, model = "saved", version = "1", format = "rds", runtime = runtime,
                   files = list(describe_file("model.rds", file)), samples = c(content, list(together)))
  write_text(sub("{", paste0('{"signature": ', signature, ","), pretty_json(manifest), fixed = TRUE),
             file.path(artifact, "manifest.json"))
  program <- file.path(place, "check.R")
  write_text(check_program, program)
  said <- suppressWarnings(system2(file.path(R.home("bin"), "Rscript"),
                                   shQuote(c("--vanilla", program, normalizePath(backend), normalizePath(place),
                                             normalizePath(predict, mustWork = FALSE))),
                                   stdout = TRUE, stderr = TRUE))
  if (!is.null(attr(said, "status"))) {
    why <- sub("^cannot serve: ", "", utils::tail(grep("^cannot serve: ", said, value = TRUE), 1L))
    if (length(why) == 0L) why <- paste(utils::tail(said, 3L), collapse = " ")
    stop_save("a backend could not serve it: ", gsub("the manifest's sample", "sample", why, fixed = TRUE))
  }
}

# What mostly is the matter.
hint_of <- function(example, columns) {
  times <- names(Filter(function(values) inherits(values, c("Date", "POSIXct")), example))
  if (length(times)) {
    return(sprintf(paste(". %s: JSON has no dates, so the backend gets texts: turn them in predict.R, with as_day() or",
                         "as_time()"), toString(times)))
  }
  ". The backend knows nothing of this session: what the model uses must be in a package or in predict.R"
}

check_program <- '
options(warn = 1, keep.source = FALSE)
arguments <- commandArgs(TRUE)
backend <- new.env(parent = globalenv())
own <- arguments[-(1:2)]
for (file in c(sort(Sys.glob(file.path(arguments[[1]], "R", "*.R"))), file.path(arguments[[1]], "predict.R"),
               own[file.exists(own)])) {
  sys.source(file, backend, chdir = TRUE, keep.source = FALSE)
}
place <- arguments[[2]]
invisible(backend$use_compiled(arguments[[1]]))
rm(arguments, file, own)
tryCatch({
  config <- backend$read_config(list(CHIPS_ARTIFACT = file.path(place, "artifact"),
                                     CHIPS_CACHE_DIR = file.path(place, "cache"), CHIPS_CONCURRENCY = "1"))
  quiet <- function(...) invisible()
  service <- backend$load_service(config, list(info = quiet, warning = quiet, error = quiet))
  config[c("model", "version")] <- service$manifest[c("model", "version")]
  invisible(backend$rehearse(service, config, warm = FALSE))
}, error = function(e) {
  message("cannot serve: ", gsub("[[:space:]]+", " ", sub("\\n  in .*", "", conditionMessage(e))))
  quit(save = "no", status = 1L)
})
'

write_text <- function(text, path) writeBin(charToRaw(enc2utf8(text)), path)

# -- what it says

shell_word <- function(text) if (grepl("^[A-Za-z0-9_./:@-]+$", text)) text else shQuote(text)

summary_lines <- function(saved, columns, left_out, answered) {
  shown <- utils::head(columns, 30L)
  names <- vapply(shown, `[[`, "", "name")
  width <- max(nchar(c("INPUT", names)))
  padded <- function(text) formatC(text, width = -width, flag = "-")
  outputs <- vapply(saved$signature$outputs, function(output) paste(output$name, output$datatype), "")
  packages <- setdiff(names(saved$runtime), "R")
  c(
    sprintf("%s  DATATYPE  VALUES", padded("INPUT")),
    trimws(sprintf("%s  %-8s  %s", padded(names), vapply(shown, `[[`, "", "datatype"), vapply(shown, column_note, "")),
           "right"),
    if (length(columns) > 30L) sprintf("\u2026 and %d more in signature.json", length(columns) - 30L),
    if (length(left_out)) sprintf("left out  %s: the model does not take it", toString(left_out)),
    sprintf("output  %s", toString(outputs)),
    sprintf("needs   %s", toString(paste(c("R", packages), unlist(saved$runtime[c("R", packages)])))),
    sprintf("written %s (rds), with %d samples that a backend predicts as the model does here",
            file.path(saved$folder, "model.rds"), saved$samples),
    sprintf("next    chips new r NAME --from %s, then chips deploy models/NAME", shell_word(saved$folder)),
    sprintf("or      %s", saved$command),
    if (!answered$takes_missing) "note    the model takes no row with a missing value: callers who send null get 422",
    "note    readRDS runs code when it loads: publish only what you trained yourself"
  )
}

folder_notes <- function(folder, has_card) {
  about_card <- if (has_card) "was kept: does it still describe this model?" else "is a draft: write what it asks for"
  foreign <- setdiff(list.files(folder), c(saved_files, "card.md"))
  c(
    if (file.exists(file.path(folder, "baseline.json"))) {
      sprintf("note    baseline.json has each column in figures; a text that fewer than %d rows have is left out",
              least_count)
    },
    sprintf("note    card.md %s", about_card),
    if (length(foreign)) sprintf("note    %s in %s would be published too: better save to a folder of its own",
                                 toString(utils::head(foreign, 5L)), folder)
  )
}
