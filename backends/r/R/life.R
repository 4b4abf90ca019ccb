# The life of the server: it listens, takes its turns, and ends.

stop_grace_s <- 8 # Cloud Run kills after 10
quiet_s <- 0.3 # by then what callers had on its way has arrived, and what was answered has left

#' Listen on all interfaces. Port 0 takes a free one.
#'
#' @return A list of `server` and `port`.
listen <- function(app, port, attempts = 20L) {
  host <- "0.0.0.0"
  for (attempt in seq_len(if (port == 0L) attempts else 1L)) {
    chosen <- if (port == 0L) httpuv::randomPort(host = host) else port
    # Two that start at once may choose the same.
    server <- tryCatch(httpuv::startServer(host, chosen, app, quiet = TRUE), error = identity)
    if (!inherits(server, "error")) {
      return(list(server = server, port = chosen))
    }
  }
  stop_start(sprintf("cannot listen on port %d: is it taken? Set PORT to another one", chosen), "os")
}

#' Serve until SIGINT, then finish what has been accepted.
#'
#' R takes SIGINT as an interrupt and knows nothing of SIGTERM; entrypoint.sh sends the one for the other. Interrupts
#' stay suspended but for one place, else one would fall into the middle of an answer.
serve <- function(server, pool, state, log) {
  on.exit(httpuv::stopServer(server))
  suspendInterrupts({
    log$info(sprintf("ready: %d predictions at once", pool$size))
    looked <- clock_ms()
    repeat {
      go_on(pool)
      if (clock_ms() - looked >= 200) {
        if (pool$interrupted || interrupt_pending()) break
        looked <- clock_ms()
      }
    }
    log$info("stopping: no new requests are taken; what runs may finish")
    stopping <- clock_ms()
    state$moved <- stopping
    repeat {
      # From before the turn: where the process stood still, what had arrived meanwhile is heard before it ends.
      now <- clock_ms()
      go_on(pool, 0.02)
      state$stopping <- now - stopping >= 1000 * quiet_s
      if (outstanding_jobs(pool) == 0L && now - state$moved >= 1000 * quiet_s) break
      if (now - stopping >= 1000 * stop_grace_s) break
    }
    interrupt_pending() # what entrypoint.sh sent late is no second wish
    log$info("stopped")
  })
}

# One turn: what has come in, then what the workers say, which is heard at once. What comes in waits a millisecond at
# most, and five where no worker is free for it anyway.
go_on <- function(pool, idle_s = 0.2) {
  busy <- sum(vapply(pool$workers, is_busy, NA))
  any_busy <- busy > 0L || length(pool$queue) > 0L
  moved <- later::run_now(if (any_busy) 0 else idle_s)
  hear_workers(pool, if (!any_busy || isTRUE(moved)) 0 else if (busy < length(pool$workers)) 0.001 else 0.005)
}

# Twice, since a second interrupt may come while the first unwinds: Ctrl-C reaches R from the terminal and from
# entrypoint.sh.
interrupt_pending <- function() {
  tryCatch(tryCatch({
    allowInterrupts(Sys.sleep(0.001))
    FALSE
  }, interrupt = function(e) TRUE), interrupt = function(e) TRUE)
}
