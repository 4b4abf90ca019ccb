#' Read the environment, load, warm up, listen; on SIGINT finish what runs. Returns the process's exit code.
#'
#' @param home The backend's folder.
main <- function(home) {
  config <- tryCatch(read_config(), error = function(e) {
    message("error: ", conditionMessage(e))
    NULL
  })
  if (is.null(config)) {
    return(exit_codes$config)
  }
  log <- log_of(config)
  tryCatch({
    if (config$compiled != "off") speed_up(home, log)
    run(config, log)
    0L
  },
  chips_start_error = function(e) {
    log$error(paste("cannot start:", conditionMessage(e)))
    e$exit_code
  },
  interrupt = function(e) {
    log$info("stopped before it was ready")
    0L
  })
}

speed_up <- function(home, log) {
  found <- use_compiled(home, log = log)
  if (!isTRUE(found)) {
    log$warning(paste("R code reads the requests, several times slower, since the compiled part is missing:", found))
  }
}

log_of <- function(config) {
  facts <- config[c("model", "version", "service", "revision")]
  new_log(config$project, facts[vapply(facts, nzchar, NA)])
}

run <- function(config, log) {
  log$info(sprintf("loading the artifact %s", config$artifact))
  service <- load_service(config, log)
  config[c("model", "version")] <- service$manifest[c("model", "version")]
  log <- log_of(config)
  if (length(service$manifest$samples) == 0) {
    log$warning("the manifest has no samples: a row is sought that the model can predict, and nobody checks the number")
  }
  pool <- new_pool(
    config$concurrency,
    work = function(job) answer_scoring(service, config, job$kind, job$body),
    # The first worker rehearses, and the others are told what it found out.
    warm = function() {
      if (is.null(service$facts$good)) rehearse(service, config) else warm_up(service, config)
      service$facts
    },
    log = log
  )
  on.exit(stop_workers(pool))
  start_workers(pool, learn = function(facts) service$facts <- facts)
  state <- new.env()
  state$stopping <- FALSE
  state$keep_alive <- FALSE
  listening <- listen(new_app(service, config, pool, log, state), config$port)
  state$keep_alive <- has_compiled() && .Call(compiled$nodelay, listening$port)
  log$info(sprintf("listening on port %d", listening$port), port = listening$port)
  serve(listening$server, pool, state, log)
}
