own_names <- c("CHIPS_MODEL", "CHIPS_VERSION", "CHIPS_ARTIFACT", "CHIPS_ARTIFACT_DIGEST", "CHIPS_CACHE_DIR",
               "CHIPS_CONCURRENCY", "CHIPS_MAX_BODY_BYTES", "CHIPS_COMPILED", "CHIPS_PREDICT")
# The gateway's own names, which stand in the same shell on a laptop. Its settings with groups have two underscores.
gateway_names <- paste0("CHIPS_", c("REGISTRY", "ARTIFACTS", "CONFIG", "DEBUG", "GATEWAY", "KEY", "TESTS_REQUIRE"))

model_name_pattern <- "^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"
version_pattern <- "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
digest_pattern <- "^sha256:[0-9a-f]{64}$"
route_pattern <- "^/[A-Za-z0-9._~:@/-]*$" # Vertex AI's own hold a colon

#' Read the environment; `environment` maps names to values.
#'
#' Stops with everything that is wrong, at once, so that a wrong deployment is fixed in one go.
read_config <- function(environment = as.list(Sys.getenv())) {
  problems <- unknown_names(names(environment))
  text <- function(names, pattern = NULL, required = FALSE) {
    values <- Filter(nzchar, environment[intersect(names, names(environment))])
    if (length(values) == 0) {
      if (required) problems <<- c(problems, sprintf("%s is not set", names[[1]]))
      return("")
    }
    value <- values[[1]]
    if (!is.null(pattern) && !grepl(pattern, value)) {
      problems <<- c(problems, sprintf("%s='%s' is not allowed there", names[[1]], substr(value, 1L, 80L)))
    }
    value
  }
  number <- function(names, default, least, most) {
    value <- text(names)
    if (!nzchar(value)) {
      return(default)
    }
    if (!grepl("^[0-9]{1,12}$", value) || as.numeric(value) < least || as.numeric(value) > most) {
      problems <<- c(problems, sprintf("%s='%s' is not a whole number from %.0f to %.0f", names[[1]],
                                       substr(value, 1L, 80L), least, most))
      return(default)
    }
    as.numeric(value)
  }
  config <- list(
    # Where they are not given, the manifest says what is served.
    model = text("CHIPS_MODEL", model_name_pattern),
    version = text("CHIPS_VERSION", version_pattern),
    artifact_digest = text("CHIPS_ARTIFACT_DIGEST", digest_pattern),
    artifact = text(c("CHIPS_ARTIFACT", "AIP_STORAGE_URI"), required = TRUE),
    port = as.integer(number(c("PORT", "AIP_HTTP_PORT"), 8080, 0, 65535)),
    cache_dir = text("CHIPS_CACHE_DIR"),
    concurrency = as.integer(number("CHIPS_CONCURRENCY", available_cpus(), 1, 1000)),
    max_body_bytes = number("CHIPS_MAX_BODY_BYTES", 31 * 1024^2, 1, 2^31),
    predict_route = text("AIP_PREDICT_ROUTE", route_pattern),
    health_route = text("AIP_HEALTH_ROUTE", route_pattern),
    compiled = text("CHIPS_COMPILED", "^(auto|off)$"),
    project = text("GOOGLE_CLOUD_PROJECT"),
    service = text("K_SERVICE"),
    revision = text("K_REVISION")
  )
  problems <- c(problems, missing_file("CHIPS_PREDICT", text("CHIPS_PREDICT")))
  if (!nzchar(config$cache_dir)) config$cache_dir <- file.path(dirname(tempdir()), "chips")
  if (length(problems) > 0) {
    stop(paste(problems, collapse = "; "), call. = FALSE)
  }
  config
}

missing_file <- function(name, path) {
  if (nzchar(path) && !file.exists(path)) sprintf("%s='%s' is no file", name, substr(path, 1L, 80L))
}

unknown_names <- function(given) {
  ours <- grep("^CHIPS_", given, value = TRUE)
  unknown <- sort(setdiff(ours[!grepl("__", ours, fixed = TRUE)], c(own_names, gateway_names)))
  vapply(unknown, function(name) {
    distance <- utils::adist(name, own_names)
    hint <- if (min(distance) <= 4) sprintf("; did you mean %s?", own_names[[which.min(distance)]]) else ""
    sprintf("%s is not known%s", name, hint)
  }, character(1), USE.NAMES = FALSE)
}

#' The processors this process may use: fewer than the machine has, in a container.
available_cpus <- function(cgroup = "/sys/fs/cgroup/cpu.max") {
  allowed <- length(parallel::mcaffinity())
  if (allowed == 0) allowed <- max(1L, parallel::detectCores(), na.rm = TRUE)
  # This container's share of them: microseconds per period, or "max".
  share <- tryCatch(scan(cgroup, "", quiet = TRUE), error = function(e) "max", warning = function(w) "max")
  if (share[[1]] == "max") {
    return(allowed)
  }
  as.integer(max(1, min(allowed, as.numeric(share[[1]]) %/% as.numeric(share[[2]]))))
}
