# A draft of the model card: what chips_save() knows, and a line to be written for all that only people know. The
# headings are those that `chips publish` asks for; a card is complete when no line begins with TODO.

#' The card in Markdown.
#'
#' @param model An R object.
#' @param runtime Packages and their versions.
#' @param training_rows How many rows the training data has; NULL where it is not known.
draft_card <- function(model, signature, runtime, training_rows = NULL) {
  needs <- paste(names(runtime), unlist(runtime), collapse = ", ")
  paste(c(
    "# Model card",
    "<!-- A draft: replace every line that begins with TODO. chips publish takes this file with the model. -->",
    "## Owner",
    "TODO: the team or person that answers for this model, with an address.",
    "## Purpose",
    "TODO: what its predictions are used for, by whom, and what they must not be used for.",
    sprintf("It predicts %s by %s (rds, with %s).", card_columns(signature$outputs), card_name(class(model)[[1L]]),
            needs),
    "## Data",
    "TODO: where the training data comes from, which period it covers, and who may use it.",
    if (!is.null(training_rows)) sprintf("Trained on %d rows; baseline.json describes them.", training_rows),
    sprintf("Inputs: %s.", card_columns(signature$inputs)),
    "## Limits",
    "TODO: for which inputs or groups of people it is wrong more often, and when it must be trained again.",
    "## Metrics",
    "TODO: how good it is, measured how, on which data, and against what."
  ), collapse = "\n\n")
}

card_columns <- function(columns) {
  shown <- utils::head(columns, 30L)
  named <- vapply(shown, function(column) sprintf("`%s` %s", card_name(column$name), column$datatype), "")
  more <- length(columns) - length(shown)
  paste0(toString(named), if (more > 0L) sprintf(" and %d more", more))
}

#' A name without what Markdown or a reader of the card could take for something else.
card_name <- function(name) {
  characters <- strsplit(enc2utf8(name), "")[[1L]]
  hidden <- grepl("[\\p{C}\\p{Z}]", characters, perl = TRUE) & characters != " "
  characters[hidden] <- sprintf("\\u%04x", vapply(characters[hidden], utf8ToInt, 0L))
  characters[characters == "`"] <- "'"
  shown <- paste(characters, collapse = "")
  if (nchar(shown) > 60L) paste0(substr(shown, 1L, 59L), "\u2026") else shown
}
