#' Logs: one JSON object a line in Cloud Logging's words; readable lines on a terminal. Never anything of a payload.
#'
#' @param facts Named list of what stands in every line.
#' @return A list of `info`, `warning`, `error` and `request`.
new_log <- function(project = "", facts = list(), con = stdout(), readable = isatty(con)) {
  prefix <- if (nzchar(project)) sprintf("projects/%s/traces/", project) else ""
  facts_json <- if (length(facts)) paste0(",", gsub("^[{]|[}]$", "", json_line(facts))) else ""
  second <- -1
  day_and_time <- ""
  write <- function(severity, message, fields) {
    now <- Sys.time()
    line <- if (readable) {
      paste(c(paste(format(now, "%H:%M:%S"), tolower(severity), message), fields$stack), collapse = "\n")
    } else {
      now <- as.numeric(now)
      if (floor(now) != second) {
        second <<- floor(now)
        day_and_time <<- format(.POSIXct(second, "UTC"), "%Y-%m-%dT%H:%M:%S")
      }
      time <- sprintf("%s.%06dZ", day_and_time, as.integer((now - second) * 1e6))
      more <- if (length(fields)) sub("{", ",", json_line(fields), fixed = TRUE) else "}"
      paste0('{"severity":"', severity, '","message":', json_string(message, ascii = TRUE), ',"time":"', time, '"',
             facts_json, more)
    }
    cat(line, "\n", sep = "", file = con)
  }
  list(
    info = function(message, ...) write("INFO", message, list(...)),
    warning = function(message, ...) write("WARNING", message, list(...)),
    error = function(message, ...) write("ERROR", message, list(...)),
    # Something about one request; `trace` goes under the names by which Cloud Logging joins lines and spans.
    request = function(severity, message, trace, fields) {
      if (!is.null(trace)) {
        fields[["logging.googleapis.com/trace"]] <- paste0(prefix, trace$trace_id)
        fields[["logging.googleapis.com/spanId"]] <- trace$span_id
        fields[["logging.googleapis.com/trace_sampled"]] <- trace$sampled
      }
      write(severity, message, fields)
    }
  )
}

# A line is written for every request, and toJSON() takes 0.2 ms for one. Only ASCII: without a locale, as in most
# containers, R would write "<U+00FC>" for what is not. `I()` marks what is JSON already.
json_line <- function(fields) {
  values <- vapply(fields, function(x) {
    if (inherits(x, "AsIs")) {
      x
    } else if (is.list(x)) {
      json_line(x)
    } else if (length(x) != 1L || is.na(x)) {
      "null"
    } else if (is.character(x)) {
      json_string(x, ascii = TRUE)
    } else if (is.logical(x)) {
      if (x) "true" else "false"
    } else {
      sprintf("%.15g", x)
    }
  }, character(1))
  paste0("{", paste0('"', names(fields), '":', values, collapse = ","), "}")
}
