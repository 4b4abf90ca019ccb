problem_titles <- c(
  "400" = "Bad request", "404" = "Not found", "405" = "Method not allowed", "413" = "Payload too large",
  "415" = "Unsupported media type", "422" = "Unprocessable request", "431" = "Request header fields too large",
  "500" = "Prediction failed", "503" = "Overloaded", "504" = "Deadline exceeded"
)

#' A condition that becomes an answer: RFC 9457 problem details, one shape in every language.
#'
#' @param detail Text for the caller: what is wrong, and how to fix it.
new_problem <- function(status, code, detail, headers = list()) {
  structure(
    class = c("chips_problem", "error", "condition"),
    list(message = detail, call = NULL, status = as.integer(status), code = code, headers = headers)
  )
}

stop_problem <- function(...) stop(new_problem(...))

stop_malformed <- function(detail) stop_problem(400L, "malformed-json", detail)

#' At most ten problems are named; the rest is counted.
stop_invalid <- function(problems) {
  shown <- utils::head(problems, 10L)
  if (length(problems) > length(shown)) shown <- c(shown, "and more")
  stop_problem(422L, "invalid-instances", paste(shown, collapse = "; "))
}

#' Refuse the values of one input in these rows; `texts` say what is wrong with each.
#'
#' A tensor has another way to name the place than an instance, so the problem keeps both.
stop_cells <- function(rows, name, texts) {
  problem <- tryCatch(stop_invalid(sprintf("instances[%d].%s%s", rows - 1L, name, texts)), chips_problem = identity)
  problem$in_tensors <- tryCatch(stop_invalid(sprintf("%s[%d]%s", name, rows - 1L, texts)),
                                 chips_problem = conditionMessage)
  stop(problem)
}

prediction_failed <- function() {
  new_problem(500L, "prediction-failed", "the prediction failed; the log has the reason under this id")
}

#' The body of a problem. On `/v2/...` it also carries `error`, so that one body serves both specifications.
render_problem <- function(problem, request_id, open_inference) {
  detail <- json_string(conditionMessage(problem))
  paste0(
    '{"type":"about:blank","title":', json_string(problem_titles[[as.character(problem$status)]]),
    ',"status":', problem$status, ',"code":', json_string(problem$code), ',"detail":', detail,
    ',"request_id":', json_string(request_id), if (open_inference) paste0(',"error":', detail), "}"
  )
}
