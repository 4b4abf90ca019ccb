traceparent_pattern <- "^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$"
cloud_trace_pattern <- "^(?!0{32})([0-9a-fA-F]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?$"

#' The trace that the caller's headers name: W3C traceparent, else Google's older X-Cloud-Trace-Context.
#'
#' @return A list of `trace_id`, `span_id` and `sampled`; NULL where the headers name none, or not a valid one.
read_trace <- function(traceparent, cloud_trace = NULL) {
  if (!is.null(traceparent)) {
    parts <- groups_of(traceparent, traceparent_pattern)
    if (is.null(parts)) {
      return(NULL)
    }
    return(list(trace_id = parts[[1]], span_id = parts[[2]],
                sampled = bitwAnd(strtoi(parts[[3]], 16L), 1L) == 1L))
  }
  parts <- groups_of(cloud_trace, cloud_trace_pattern)
  if (is.null(parts)) {
    return(NULL)
  }
  list(trace_id = tolower(parts[[1]]), span_id = decimal_to_hex(parts[[2]]), sampled = !parts[[3]] %in% c("", "0"))
}

groups_of <- function(text, pattern) {
  if (is.null(text)) {
    return(NULL)
  }
  found <- regexpr(pattern, text, perl = TRUE)
  if (found == -1L) {
    return(NULL)
  }
  start <- attr(found, "capture.start")
  substring(text, start, start + attr(found, "capture.length") - 1L)
}

# A span id of 64 bits does not fit into any number of R: the long division by 16, digit by digit.
decimal_to_hex <- function(decimal) {
  digits <- as.integer(strsplit(decimal, "")[[1]])
  hex <- character(16)
  for (place in 16:1) {
    rest <- 0L
    for (i in seq_along(digits)) {
      value <- rest * 10L + digits[[i]]
      digits[[i]] <- value %/% 16L
      rest <- value %% 16L
    }
    hex[[place]] <- c(0:9, letters)[[rest + 1L]]
  }
  paste(hex, collapse = "")
}
