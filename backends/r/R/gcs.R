# The few calls of Cloud Storage's JSON API that are needed, by plain HTTP.

attempts_without_progress <- 6L
first_delay_s <- 0.2
longest_delay_s <- 10

#' A client. STORAGE_EMULATOR_HOST and GCE_METADATA_HOST are honoured as Google's own clients do.
#'
#' @param sleep Waits a number of seconds; a seam for tests.
gcs_client <- function(emulator = Sys.getenv("STORAGE_EMULATOR_HOST"),
                       metadata = Sys.getenv("GCE_METADATA_HOST", "metadata.google.internal"), sleep = Sys.sleep) {
  base <- if (!nzchar(emulator)) {
    "https://storage.googleapis.com"
  } else if (grepl("^https?://", emulator)) {
    emulator
  } else {
    paste0("http://", emulator)
  }
  token <- if (nzchar(emulator)) function() NULL else token_source(metadata, sleep)
  list(base = sub("/+$", "", base), token = token, sleep = sleep)
}

#' Access tokens of the service account, kept until near their end.
token_source <- function(host, sleep = Sys.sleep, now = function() as.numeric(Sys.time())) {
  url <- sprintf("http://%s/computeMetadata/v1/instance/service-accounts/default/token", host)
  token <- NULL
  expires <- 0
  function() {
    if (is.null(token) || now() > expires - 60) {
      answer <- patiently("the access token", sleep, function() {
        request(url, c("Metadata-Flavor" = "Google"), timeout_s = 10L)
      })
      content <- if (answer$status == 200L) jsonlite::parse_json(rawToChar(answer$body))
      if (is.null(content$access_token)) {
        stop_start(sprintf(paste("no credentials for Google Cloud: the metadata server at %s answered %d;",
                                 "run as a service account, or name a folder in CHIPS_ARTIFACT"), host,
                           answer$status), "no_permission")
      }
      token <<- content$access_token
      expires <<- now() + content$expires_in
    }
    token
  }
}

#' An object's metadata: `generation` and `size`.
gcs_stat <- function(client, bucket, object, log = NULL) {
  jsonlite::parse_json(rawToChar(gcs_get(client, bucket, object, "", log)))
}

#' An object's bytes, in memory: for the manifest.
gcs_read <- function(client, bucket, object, log = NULL) gcs_get(client, bucket, object, "?alt=media", log)

gcs_get <- function(client, bucket, object, query, log) {
  answer <- patiently(gs_address(bucket, object), client$sleep, function() {
    answer <- request(paste0(object_url(client, bucket, object), query), gcs_headers(client), timeout_s = 60L)
    stop_for_status(answer$status, gs_address(bucket, object))
    answer
  }, log = log)
  answer$body
}

#' Stream an object to a file, going on where a try broke off, of the very same generation.
#'
#' @param progress Called with the number of bytes that have newly arrived.
gcs_download <- function(client, bucket, object, path, limit, progress, log = NULL) {
  where <- gs_address(bucket, object)
  stat <- gcs_stat(client, bucket, object, log)
  if (!identical(as.double(stat$size), as.double(limit))) stop_mismatch(where)
  generation <- stat$generation
  url <- sprintf("%s?alt=media&generation=%s&ifGenerationMatch=%s", object_url(client, bucket, object), generation,
                 generation)
  sink <- new_sink(path, limit, progress, where)
  on.exit(sink$close())
  # An empty object has no range that could be asked for.
  if (limit > 0) {
    patiently(where, client$sleep, progress = sink$size, log = log, call = function() {
      if (sink$size() < limit) stream(url, gcs_headers(client), sink, where)
      if (sink$size() < limit) stop("the answer ended early")
    })
  }
  sink$close()
}

# Takes a download: writes, counts, and refuses more than was announced.
new_sink <- function(path, limit, progress, where) {
  con <- file(path, open = "wb")
  size <- 0
  problem <- NULL
  list(
    size = function() size,
    problem = function() problem,
    write = function(block) {
      if (size + length(block) > limit) {
        problem <<- "size"
        stop("too large")
      }
      tryCatch(writeBin(block, con), error = function(e) {
        problem <<- "disk"
        stop(e)
      })
      size <<- size + length(block)
      progress(length(block))
    },
    close = function() {
      if (!is.null(con)) close(con)
      con <<- NULL
    }
  )
}

stream <- function(url, headers, sink, where) {
  offset <- sink$size()
  handle <- new_handle(headers, timeout_s = 0L)
  # A refusal ends without a body, so that none is taken for the file.
  curl::handle_setopt(handle, failonerror = TRUE, range = sprintf("%.0f-", offset))
  tried <- tryCatch(
    curl::curl_fetch_stream(url, function(block) {
      if (offset > 0 && curl::handle_data(handle)$status_code != 206L) stop("the range was not honoured")
      sink$write(block)
    }, handle = handle),
    error = identity
  )
  if (identical(sink$problem(), "size")) stop_mismatch(where)
  if (identical(sink$problem(), "disk")) {
    stop(structure(class = c("chips_disk_error", "error", "condition"), list(message = "writing failed", call = NULL)))
  }
  status <- curl::handle_data(handle)$status_code
  if (status != 0L) stop_for_status(status, where)
  if (inherits(tried, "error")) stop(conditionMessage(tried), call. = FALSE)
}

#' Do `call`, again and again where that may help, with full jitter; its last error in our words.
patiently <- function(what, sleep, call, progress = function() 0, log = NULL) {
  failures <- 0L
  last <- progress()
  repeat {
    outcome <- tryCatch(list(value = call()), error = identity)
    if (!inherits(outcome, "error")) {
      return(outcome$value)
    }
    if (inherits(outcome, c("chips_start_error", "chips_disk_error"))) stop(outcome)
    failures <- if (progress() > last) 1L else failures + 1L
    last <- progress()
    if (failures >= attempts_without_progress) {
      stop_start(sprintf("%s cannot be fetched now: %s", what, conditionMessage(outcome)), "unavailable")
    }
    if (!is.null(log)) {
      log$warning(sprintf("fetching %s failed and is tried again: %s", what, conditionMessage(outcome)))
    }
    sleep(stats::runif(1L, 0, min(first_delay_s * 2^failures, longest_delay_s)))
  }
}

new_handle <- function(headers, timeout_s) {
  handle <- curl::new_handle(connecttimeout = 10L, timeout = timeout_s, low_speed_limit = 1L, low_speed_time = 60L,
                             useragent = "chips-backend-r/0.1")
  if (length(headers)) curl::handle_setheaders(handle, .list = as.list(headers))
  handle
}

request <- function(url, headers, timeout_s) {
  answer <- curl::curl_fetch_memory(url, handle = new_handle(headers, timeout_s))
  if (answer$status_code %in% c(408L, 429L) || answer$status_code >= 500L) {
    stop("status ", answer$status_code, call. = FALSE)
  }
  list(status = answer$status_code, body = answer$content)
}

gcs_headers <- function(client) {
  token <- client$token()
  # The stored bytes and not a decompressed copy: the digest is of what was published.
  c("Accept-Encoding" = "gzip", if (!is.null(token)) c(Authorization = paste("Bearer", token)))
}

stop_for_status <- function(status, where) {
  if (status == 412L) stop_start(sprintf("%s was replaced while it was fetched: start again", where), "data")
  if (status == 404L) {
    stop_start(sprintf("%s is not there: is CHIPS_ARTIFACT right, and has the version been published?", where),
               "no_input")
  }
  if (status %in% c(401L, 403L)) {
    stop_start(sprintf("no permission to read %s: give this service's account %s on the bucket (%d)", where,
                       "roles/storage.objectViewer", status), "no_permission")
  }
  if (status >= 400L && !status %in% c(408L, 416L, 429L) && status < 500L) {
    stop_start(sprintf("%s was refused with status %d", where, status), "unavailable")
  }
  if (!status %in% c(200L, 206L)) stop("status ", status, call. = FALSE)
}

# The object's name is one segment of the path.
object_url <- function(client, bucket, object) {
  sprintf("%s/storage/v1/b/%s/o/%s", client$base, bucket, curl::curl_escape(enc2utf8(object)))
}

gs_address <- function(bucket, object) sprintf("gs://%s/%s", bucket, object)
