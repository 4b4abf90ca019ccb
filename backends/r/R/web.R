# The web side: routes, headers, limits, the log line of each request. Only this file and life.R know plumber and
# httpuv.

request_id_pattern <- "^[A-Za-z0-9._:+/=@-]{1,128}$"

#' The httpuv application.
#'
#' @param pool As [new_pool()] returns, started.
#' @param state Environment shared with [serve()]: whether connections are kept (`keep_alive`), whether it is
#'   `stopping`, and when something last `moved`.
new_app <- function(service, config, pool, log, state) {
  routes <- route_table(service, config, pool)
  router <- plumber_router(routes)
  reply <- new_reply(config, log, state)
  list(
    # Before the body has come.
    onHeaders = function(req) refuse_early(req, config, reply),
    call = function(req) {
      call <- new_call(req)
      tryCatch({
        # HTTP/0.9 has no header fields; httpuv takes it, and would answer with some.
        if (length(req$HEADERS) == 0) stop_problem(400L, "bad-request", "the request is not valid HTTP/1.1")
        check_headers(req)
        check_route(routes, call)
        if (call$method == "POST") {
          req$chips_body <- accept_body(req, call, config, state)
          call$bytes_in <- length(req$chips_body)
          # Not by the router, which takes 0.7 ms of processor time for each request.
          answer_later(routes[[call$path]]$POST(req), req, call, pool, reply, state)
        } else {
          reply$json(call, router$call(req)$body)
        }
      },
      chips_problem = function(problem) reply$refuse(call, problem),
      error = function(error) reply$refuse(call, prediction_failed(), conditionMessage(error)))
    }
  )
}

#' How answers are made: `json` of a text, `scored` of an outcome, `refuse` of a problem; all write the line of the log.
new_reply <- function(config, log, state) {
  served <- paste0(config$model, "@", config$version)
  answer <- function(call, status, body, headers, code = "", stack = NULL) {
    response <- list(status = status, body = body, headers = c(headers, list(
      "X-Request-Id" = call$request_id,
      "X-Chips-Model" = served,
      "Server-Timing" = paste(c(sprintf("%s;dur=%.1f", names(call$timing), call$timing),
                                if (nzchar(code)) sprintf("error;desc=\"%s\"", code)), collapse = ", ")
    )))
    size <- if (is.raw(body)) length(body) else nchar(body, "bytes")
    if (call$method == "HEAD") {
      # httpuv would send the body, which the caller would read as the head of the next answer (RFC 9110, 9.3.2).
      response$headers[["Content-Length"]] <- as.character(size)
      response$body <- ""
    }
    # httpuv writes head and body apart. With Nagle's algorithm on, the body would wait 40 ms on a kept connection, for
    # the caller's delayed acknowledgement; only the compiled part can switch it off.
    if (!state$keep_alive || state$stopping || call$refused_early) response$headers$Connection <- "close"
    log_call(log, call, status, size, code, stack)
    response
  }
  list(
    json = function(call, body) answer(call, 200L, body, list("Content-Type" = "application/json")),
    scored = function(call, outcome) {
      if (is.null(outcome$json_bytes)) {
        return(answer(call, 200L, outcome$json, list("Content-Type" = "application/json")))
      }
      headers <- list("Content-Type" = binary_type)
      headers[[length_header]] <- as.character(outcome$json_bytes)
      answer(call, 200L, outcome$json, headers)
    },
    refuse = function(call, problem, stack = NULL) {
      body <- render_problem(problem, call$request_id, startsWith(call$path, "/v2/"))
      headers <- c(list("Content-Type" = "application/problem+json"), problem$headers)
      answer(call, problem$status, body, headers, problem$code, stack)
    }
  )
}

# httpuv closes the connection with an answer at this point, and a caller that still sends may see a reset in its place:
# so a body that is only somewhat too large is taken in, and refused by an answer that arrives.
refuse_early <- function(req, config, reply) {
  # A worker that dies of a segmentation fault takes the folder along that bodies are written to.
  tempdir(check = TRUE)
  length <- suppressWarnings(as.numeric(req$HTTP_CONTENT_LENGTH))
  if (length(length) == 1L && !is.na(length) && length > 8 * config$max_body_bytes) {
    return(reply$refuse(new_call(req, refused_early = TRUE), too_large(config)))
  }
  # httpuv takes any `Upgrade` for a WebSocket's and hangs up: an answer here comes before, though its head alone.
  if (!is.null(req$HTTP_UPGRADE)) {
    response <- reply$refuse(new_call(req, refused_early = TRUE), no_upgrade())
    response$headers[["Content-Type"]] <- NULL
    response$headers[["Content-Length"]] <- "0"
    c(response[c("status", "headers")], list(body = NULL))
  }
}

accept_body <- function(req, call, config, state) {
  body <- read_scoring_body(req, call, config)
  if (state$stopping) stop_problem(503L, "overloaded", "the backend is stopping", list("Retry-After" = "1"))
  state$moved <- clock_ms()
  body
}

# Have a worker do the job; a promise of its answer.
answer_later <- function(job, req, call, pool, reply, state) {
  later_answer <- deferred()
  job$deadline <- deadline_of(req, call)
  job$done <- function(outcome) {
    call$timing[names(outcome$timing)] <- outcome$timing
    later_answer$settle(if (is.null(outcome$problem)) reply$scored(call, outcome) else
      reply$refuse(call, outcome$problem, outcome$stack))
    state$moved <- clock_ms()
  }
  submit_job(pool, job)
  later_answer
}

no_upgrade <- function() {
  new_problem(400L, "bad-request", paste("this server speaks HTTP/1.1 alone: send the request without Upgrade",
                                         "(Java: HttpClient.Version.HTTP_1_1)"))
}

longest_field <- 16 * 1024

check_headers <- function(req) {
  fields <- nchar(names(req$HEADERS), "bytes") + nchar(unlist(req$HEADERS), "bytes")
  line <- nchar(req$REQUEST_METHOD, "bytes") + nchar(req$PATH_INFO, "bytes") + nchar(req$QUERY_STRING, "bytes")
  if (max(fields, line) > longest_field) {
    stop_problem(431L, "headers-too-large", "the request line or a header field is longer than 16 KiB")
  }
}

# -- routes

#' By path, then by method: functions of the request that return JSON, or a job for a worker.
route_table <- function(service, config, pool) {
  live <- function(req) '{"live":true}'
  ready_json <- paste0('{"ready":true,"name":', json_string(config$model), "}")
  ready <- function(req) if (can_answer(pool)) ready_json else stop(not_ready())
  scoring <- function(kind) {
    force(kind)
    function(req) {
      length <- if (kind == "infer") req$HTTP_INFERENCE_HEADER_CONTENT_LENGTH
      list(kind = if (is.null(length)) kind else paste(kind, substr(length, 1L, 32L)), body = req$chips_body)
    }
  }
  api <- describe_api(config, service$manifest)
  metadata_json <- metadata(service, config)
  table <- list(
    "/predict" = list(POST = scoring("predict")), "/v2/health/live" = list(GET = live),
    "/v2/health/ready" = list(GET = ready), "/openapi.json" = list(GET = function(req) api)
  )
  model <- paste0("/v2/models/", config$model)
  for (path in c(model, paste0(model, "/versions/", config$version))) {
    table[[path]] <- list(GET = function(req) metadata_json)
    table[[paste0(path, "/ready")]] <- list(GET = ready)
    table[[paste0(path, "/infer")]] <- list(POST = scoring("infer"))
  }
  # Vertex AI's own paths, next to the contract's.
  if (nzchar(config$predict_route)) table[[config$predict_route]]$POST <- scoring("predict")
  if (nzchar(config$health_route)) table[[config$health_route]]$GET <- ready
  table
}

metadata <- function(service, config) {
  tensors <- function(list) {
    lapply(list, function(tensor) c(tensor[c("name", "datatype")], list(shape = I(tensor$shape))))
  }
  json_value(list(
    name = config$model, versions = I(config$version), platform = paste0("r-", service$manifest$format),
    inputs = tensors(service$manifest$signature$inputs), outputs = tensors(service$manifest$signature$outputs),
    parameters = c(
      list(concurrency = config$concurrency, artifact = service$artifact$address,
           artifact_digest = service$artifact$digest, accepts = I(service$facts$accepts)),
      if (!is.null(service$facts$classes)) list(classes = I(service$facts$classes)),
      if (length(service$facts$categories)) list(categories = lapply(service$facts$categories, as_json_array)),
      if (identical(service$manifest$rows, "together")) list(rows = "together")
    )
  ))
}

as_json_array <- function(values) if (is.numeric(values)) I(as.list(as.integer(values))) else I(values)

#' The plumber router of all that is not a prediction: health, metadata, description.
#'
#' None of plumber's filters: its query parser answers `?x=%00` with a 500. None of its parsers: theirs answer a
#' malformed body with a 500, and choose by content type. None of its serializers: they box, and round to 4 digits.
plumber_router <- function(routes) {
  router <- plumber::pr_set_parsers(plumber::Plumber$new(filters = list()), character())
  for (path in names(routes)) {
    route <- routes[[path]]$GET
    if (!is.null(route)) router <- plumber::pr_handle(router, methods_of("GET"), path, plumber_handler(route))
  }
  plumber::pr_set_error(router, function(req, res, err) stop(err))
}

plumber_handler <- function(route) {
  force(route)
  function(req, res) {
    res$body <- route(req)
    res
  }
}

methods_of <- function(method) if (method == "GET") c("GET", "HEAD") else method

# plumber's own 405 has an empty Allow, and its paths are patterns, in which a dot is any character.
check_route <- function(routes, call) {
  methods <- names(routes[[call$path]])
  if (is.null(methods)) {
    stop_problem(404L, "not-found", sprintf("there is nothing at %s; GET /openapi.json tells what there is",
                                            substr(call$path, 1L, 200L)))
  }
  if (!call$method %in% methods && !(call$method == "HEAD" && "GET" %in% methods)) {
    allowed <- sort(unlist(lapply(methods, methods_of)))
    stop_problem(405L, "method-not-allowed", sprintf("use %s here", toString(allowed)),
                 list(Allow = toString(allowed)))
  }
}

# -- one request

new_call <- function(req, refused_early = FALSE) {
  given <- req$HTTP_X_REQUEST_ID
  list(
    method = req$REQUEST_METHOD, path = req$PATH_INFO,
    request_id = if (!is.null(given) && grepl(request_id_pattern, given)) given else new_request_id(),
    trace = read_trace(req$HTTP_TRACEPARENT, req$HTTP_X_CLOUD_TRACE_CONTEXT), caller = req$HTTP_X_CHIPS_CALLER,
    timing = c(queue = 0, parse = 0, predict = 0, render = 0), arrived = clock_ms(), bytes_in = 0,
    refused_early = refused_early
  )
}

# Not from R's own generator, whose seed belongs to the models.
new_request_id <- function() paste(openssl::rand_bytes(16L), collapse = "")

read_scoring_body <- function(req, call, config) {
  given <- if (is.null(req$CONTENT_TYPE)) "application/json" else req$CONTENT_TYPE
  kind <- if (given == "application/json") given else tolower(trimws(sub(";.*", "", given)))
  is_binary <- kind == binary_type && endsWith(call$path, "/infer") &&
    !is.null(req$HTTP_INFERENCE_HEADER_CONTENT_LENGTH)
  if (kind != "application/json" && !endsWith(kind, "+json") && !is_binary) {
    stop_problem(415L, "unsupported-media-type", sprintf("send application/json, not %s", substr(kind, 1L, 80L)))
  }
  coding <- req$HTTP_CONTENT_ENCODING
  if (!is.null(coding) && !tolower(trimws(coding)) %in% c("", "identity")) {
    stop_problem(415L, "unsupported-media-type", "send the body as it is, without Content-Encoding",
                 list("Accept-Encoding" = "identity"))
  }
  body <- req$rook.input$read()
  if (length(body) > config$max_body_bytes) stop(too_large(config))
  body
}

too_large <- function(config) {
  new_problem(413L, "payload-too-large", sprintf("the body is larger than %.0f bytes", config$max_body_bytes))
}

# When the caller stops waiting, by X-Request-Timeout in milliseconds.
deadline_of <- function(req, call) {
  allowed <- req$HTTP_X_REQUEST_TIMEOUT
  if (is.null(allowed) || !grepl("^[0-9]+$", allowed)) {
    return(Inf)
  }
  deadline <- call$arrived + as.numeric(substr(allowed, 1L, 12L))
  if (deadline <= clock_ms()) {
    stop_problem(504L, "deadline-exceeded", "the time allowed was over before the prediction could begin")
  }
  deadline
}

log_call <- function(log, call, status, size, code, stack) {
  fields <- list(
    # Written here, since this is done for each request.
    httpRequest = I(sprintf(
      '{"requestMethod":%s,"requestUrl":%s,"status":%d,"requestSize":"%.0f","responseSize":"%.0f","latency":"%.6fs"}',
      json_string(call$method, ascii = TRUE), json_string(substr(call$path, 1L, 512L), ascii = TRUE), status,
      call$bytes_in, size, (clock_ms() - call$arrived) / 1000
    )),
    request_id = call$request_id,
    timing = I(sprintf("{%s}", paste(sprintf('"%s":%.3f', names(call$timing), call$timing), collapse = ",")))
  )
  if (!is.null(call$caller) && nzchar(call$caller)) fields$caller <- substr(call$caller, 1L, 128L)
  if (nzchar(code)) fields$code <- code
  severity <- if (status >= 500L) "ERROR" else if (status >= 400L) "WARNING" else "INFO"
  log$request(severity, sprintf("%s %s %d", call$method, substr(call$path, 1L, 200L), status), call$trace, fields)
  if (is.null(stack)) {
    return(invisible())
  }
  if (status < 500L) { # the caller is to blame: what the model said, without the way to it
    message <- sprintf("request %s was refused by the model", call$request_id)
    reason <- sub("\n  in .*", "", stack)
    log$request(severity, message, call$trace, list(request_id = call$request_id, reason = reason))
  } else {
    message <- sprintf("request %s failed", call$request_id)
    log$request(severity, message, call$trace, list(request_id = call$request_id, stack = stack))
  }
}

#' An answer that comes later, in the form that httpuv takes: a promise.
#'
#' The package promises would run each of httpuv's four steps through the event loop, at 2 ms of processor time for each
#' request (437 instead of 1046 requests a second, measured). Here they run as soon as the answer is there. An answer
#' always comes, and never as an error, so there is nothing to catch.
deferred <- function() {
  following <- NULL
  settled <- NULL # a list of the value, which may be NULL
  then <- function(onFulfilled = NULL, onRejected = NULL) { # nolint: object_name_linter.
    force(onFulfilled)
    after <- deferred()
    following <<- function(value) after$settle(if (is.null(onFulfilled)) value else onFulfilled(value))
    # What is late when it comes is settled before anybody waits for it.
    if (!is.null(settled)) later::later(function() following(settled[[1]]))
    after
  }
  structure(list(
    then = then,
    catch = function(onRejected) then(), # nolint: object_name_linter.
    finally = function(onFinally) { # nolint: object_name_linter.
      then(function(value) {
        force(value)
        onFinally()
        value
      })
    },
    settle = function(value) {
      force(value)
      settled <<- list(value)
      if (!is.null(following)) following(value)
    }
  ), class = "promise")
}
