#' Read the environment, load, warm up, listen; on SIGINT finish what runs. Returns the process's exit code.
main <- function() {
  config <- tryCatch(read_config(), error = function(e) {
    message("error: ", conditionMessage(e))
    NULL
  })
  if (is.null(config)) {
    return(exit_codes$config)
  }
  log <- new_log(config$project, list(model = config$model, version = config$version))
  tryCatch({
    run(config, log)
    log$info("stopped")
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

run <- function(config, log) {
  served <- sprintf("%s@%s", config$model, config$version)
  log$info(sprintf("loading %s from %s", served, config$artifact))
  service <- load_service(config, log)
  if (length(service$manifest$samples) == 0) {
    log$warning("the manifest has no samples, so the first caller warms the model up and nobody has checked it")
  }
  pool <- new_pool(
    config$concurrency,
    work = function(job) answer_scoring(service, config, job$kind, job$body),
    warm = function() warm_up(service, config),
    log = log
  )
  on.exit(stop_workers(pool))
  start_workers(pool)
  state <- new.env()
  state$stopping <- FALSE
  listening <- listen(new_app(service, config, pool, log, state), config$port)
  log$info(sprintf("listening on port %d", listening$port), port = listening$port)
  log$info(sprintf("ready: %s, %d predictions at once", served, config$concurrency))
  serve(listening$server, pool, state, log)
}
