# What predict.R uses to turn texts into what a model takes. A value that cannot be turned is the caller's mistake: it
# is answered with 422, where a model's own error would be a 500.

#' A column as a factor with the levels that the model knows.
as_levels <- function(rows, name, levels, ordered = FALSE) {
  if (is.null(rows[[name]])) {
    return(rows)
  }
  given <- as.character(rows[[name]])
  stop_unknown(rows, name, rows[[name]], !is.na(given) & !given %in% levels, one_of(levels))
  rows[[name]] <- factor(given, levels = levels, ordered = ordered)
  rows
}

one_of <- function(values) {
  more <- if (length(values) > 20L) sprintf(" and %d more", length(values) - 20L) else ""
  paste0("one of ", toString(json_values(utils::head(values, 20L), whole = TRUE)), more)
}

#' A column of texts like 2026-11-24 as dates.
as_day <- function(rows, name) {
  given <- as.character(rows[[name]])
  days <- as.Date(given, format = "%Y-%m-%d")
  right <- grepl("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", given) & !is.na(days)
  stop_unknown(rows, name, given, !is.na(given) & !right, "a date like 2026-11-24")
  rows[[name]] <- days
  rows
}

#' A column of texts like 2026-11-24T10:00:00Z as times, in UTC.
as_time <- function(rows, name) {
  given <- as.character(rows[[name]])
  times <- as.POSIXct(given, tz = "UTC", format = "%Y-%m-%dT%H:%M:%OSZ")
  stop_unknown(rows, name, given, !is.na(given) & is.na(times), "a time like 2026-11-24T10:00:00Z")
  rows[[name]] <- times
  rows
}

stop_unknown <- function(rows, name, given, wrong, expected) {
  at <- utils::head(which(wrong), enough_problems)
  if (length(at)) {
    if (is.factor(given)) given <- as.character(given)
    stop_cells(at, name, sprintf(": expected %s, got %s", expected, vapply(given[at], shown, "")))
  }
}

#' The parameter `type`, where it is one that the model's predict() method takes.
checked_type <- function(model, type) {
  if (!is.null(type) && !(is.character(type) && type %in% types_of(model))) {
    stop_invalid(sprintf("parameters.type: expected %s, got %s", one_of(types_of(model)), shown(type)))
  }
  type
}
