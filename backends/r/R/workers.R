# Where predictions run. R has one thread, so a prediction in this process would stop everything: health, deadlines,
# the refusal of too many. They run in forks of it, which share the loaded model's memory until they write to it.
#
# parallel:::mcfork and its kin are not exported, but documented for this use (?mcfork), and as old as the package.

waiting_per_slot <- 16L
longest_pause_ms <- 10000 # between the attempts to start a worker that cannot be warmed up

#' A pool of `size` workers with a bounded line before them; [start_workers()] starts them.
#'
#' @param work Function of a job that returns an outcome; runs in the workers.
#' @param warm Function without arguments, run once in each worker before its first job; an error in it stops the start.
#' @return An environment: `workers` by process id, each with its `process` and the `job` it is at; `queue`, of jobs;
#'   `interrupted`, whether an interrupt came; `failures`, how many workers in a row could not be warmed up, and when to
#'   `launch_at` the next one.
new_pool <- function(size, work, warm, log) {
  list2env(list(size = size, work = work, warm = warm, log = log, workers = list(), queue = list(),
                interrupted = FALSE, failures = 0L, launch_at = 0))
}

#' Fork the workers, and wait until all are warm.
#'
#' @param learn Called with what `warm` returned in the first worker, before the others are forked.
start_workers <- function(pool, learn = identity) {
  launch_worker(pool)
  learn(await_warm(pool, names(pool$workers)))
  for (i in seq_len(pool$size - 1L)) launch_worker(pool)
  for (pid in names(Filter(is_busy, pool$workers))) await_warm(pool, pid)
}

await_warm <- function(pool, pid) {
  message <- parallel:::readChild(as.integer(pid))
  if (!is.raw(message)) {
    stop_start("the model ended its process while it was warmed up: does it call quit(), or is memory short?",
               "software")
  }
  outcome <- unserialize(message)
  if (!is.null(outcome$problem)) stop_start(outcome$problem, outcome$exit)
  pool$workers[[pid]]["job"] <- list(NULL)
  outcome$warm
}

#' Whether requests can be answered: FALSE while no worker is warm, and the last could not be warmed up.
can_answer <- function(pool) {
  pool$failures == 0L || any(vapply(pool$workers, function(worker) !isTRUE(worker$job$warming), NA))
}

stop_workers <- function(pool) {
  for (worker in pool$workers) tools::pskill(worker$process$pid, tools::SIGKILL)
}

#' Have a job done. `kind` and `body` are for the worker; `deadline` (ms, Inf for none) and `done`, called with the
#' outcome, for us.
submit_job <- function(pool, job) {
  job$arrived <- clock_ms()
  if (!can_answer(pool)) stop(not_ready())
  if (length(pool$queue) >= pool$size * waiting_per_slot) {
    stop_problem(503L, "overloaded", "all prediction slots are busy and the queue is full", list("Retry-After" = "1"))
  }
  pool$queue <- c(pool$queue, list(job))
  hand_out(pool)
}

#' Take what the workers have to say, after waiting for it so many seconds at most.
hear_workers <- function(pool, wait_s) {
  for (pid in said_something(pool, wait_s)) hear_worker(pool, pid)
  end_the_late(pool)
  if (length(pool$workers) < pool$size && clock_ms() >= pool$launch_at) launch_worker(pool)
  if (length(pool$queue)) hand_out(pool)
}

# Nobody waits for it any more, and it may never end.
end_the_late <- function(pool) {
  now <- clock_ms()
  late <- Filter(function(worker) isTRUE(worker$job$deadline <= now), pool$workers)
  for (pid in names(late)) {
    pool$workers[[pid]] <- NULL
    end_process(late[[pid]])
    pool$log$error(sprintf("the worker %s was ended: its prediction was not done by the deadline", pid))
    launch_worker(pool)
    job <- late[[pid]]$job
    problem <- new_problem(504L, "deadline-exceeded", "the time allowed was over before the prediction was done")
    job$done(list(problem = problem, timing = c(queue = job$began - job$arrived, predict = now - job$began)))
  }
}

# To read until its end could wait for ever: what the model has started may hold the pipe open.
end_process <- function(worker) {
  tools::pskill(worker$process$pid, tools::SIGKILL)
  parallel:::rmChild(worker$process)
}

outstanding_jobs <- function(pool) length(pool$queue) + sum(vapply(pool$workers, is_busy, NA))

is_busy <- function(worker) !is.null(worker$job)

launch_worker <- function(pool) {
  process <- fork_worker(pool$work, pool$warm)
  pool$workers[[as.character(process$pid)]] <- list(process = process, job = list(warming = TRUE))
}

hand_out <- function(pool) {
  now <- clock_ms()
  late <- vapply(pool$queue, function(job) job$deadline <= now, NA)
  waited <- pool$queue[late]
  pool$queue <- pool$queue[!late]
  for (job in waited) {
    problem <- new_problem(504L, "deadline-exceeded", "the time allowed was over before a slot was free")
    job$done(list(problem = problem, timing = c(queue = now - job$arrived)))
  }
  while (length(pool$queue) && length(free <- Filter(Negate(is_busy), pool$workers))) {
    job <- pool$queue[[1]]
    pool$queue <- pool$queue[-1]
    give(pool, names(free)[[1]], job)
  }
}

give <- function(pool, pid, job) {
  job$began <- clock_ms()
  sent <- tryCatch(send_job(pool$workers[[pid]]$process, job), error = identity)
  if (inherits(sent, "error")) {
    # It died while it had nothing to do: no fault of this job.
    bury(pool, pid)
    pool$queue <- c(list(job), pool$queue)
  } else {
    pool$workers[[pid]]$job <- job
  }
}

hear_worker <- function(pool, pid) {
  message <- parallel:::readChild(as.integer(pid))
  worker <- pool$workers[[pid]]
  job <- worker$job
  outcome <- if (is.raw(message)) unserialize(message)
  if (isTRUE(job$warming)) {
    hear_warming(pool, pid, outcome)
    return(invisible())
  }
  if (is.null(outcome)) {
    bury(pool, pid)
    outcome <- list(problem = prediction_failed(), stack = "the worker ended in the middle of this prediction")
  } else if (isTRUE(outcome$last)) {
    pool$workers[[pid]] <- NULL
    end_process(worker)
    pool$log$error(sprintf("the model closed what the worker %s reads from; another is started", pid))
    launch_worker(pool)
  } else {
    pool$workers[[pid]]["job"] <- list(NULL)
  }
  if (!is.null(job)) {
    outcome$timing <- c(queue = job$began - job$arrived, outcome$timing)
    job$done(outcome)
  }
}

# A worker that replaces one. Where it cannot be warmed up, the next one is tried after a pause that grows.
hear_warming <- function(pool, pid, outcome) {
  if (!is.null(outcome) && is.null(outcome$problem)) {
    pool$failures <- 0L
    pool$workers[[pid]]["job"] <- list(NULL)
    return(invisible())
  }
  why <- if (is.null(outcome)) "it ended by itself" else outcome$problem
  pool$log$error(paste("a worker could not be warmed up:", why))
  worker <- pool$workers[[pid]]
  pool$workers[[pid]] <- NULL
  if (!is.null(outcome)) end_process(worker)
  pool$failures <- pool$failures + 1L
  pool$launch_at <- clock_ms() + min(longest_pause_ms, 100 * 2^pool$failures)
  if (!can_answer(pool)) {
    for (job in pool$queue) job$done(list(problem = not_ready(), timing = c(queue = clock_ms() - job$arrived)))
    pool$queue <- list()
  }
}

bury <- function(pool, pid) {
  pool$workers[[pid]] <- NULL
  pool$log$error(sprintf("the worker %s ended by itself: out of memory, or a fault in a library; another is started",
                         pid))
  launch_worker(pool)
}

not_ready <- function() {
  new_problem(503L, "not-ready", "no worker can predict at the moment; the log says why", list("Retry-After" = "1"))
}

# Waiting on files is open to interrupts even where they are suspended: one is noted here, and obeyed at its place.
said_something <- function(pool, wait_s) {
  found <- tryCatch(parallel:::selectChildren(as.integer(names(pool$workers)), wait_s), interrupt = function(e) {
    pool$interrupted <- TRUE
    NULL
  })
  if (is.integer(found)) as.character(found) else character()
}

send_job <- function(process, job) {
  if (has_compiled()) {
    return(.Call(compiled$send, process$fd[[2]], job$kind, job$body))
  }
  message <- serialize(job[c("kind", "body")], NULL, xdr = FALSE)
  header <- writeBin(length(message), raw())
  parallel:::sendChildStdin(process, c(header, message))
}

fork_worker <- function(work, warm) {
  process <- parallel:::mcfork()
  if (inherits(process, "masterProcess")) {
    # Nothing may return from here: what follows in the parent is none of the worker's business.
    tryCatch(suspendInterrupts(be_worker(work, warm)), error = function(e) message(conditionMessage(e)),
             finally = end_worker())
  }
  process
}

be_worker <- function(work, warm) {
  close_sockets()
  quit_alone()
  compiler::enableJIT(3L) # which forking has turned off
  sink(stderr()) # what a model prints is no log line
  if (exists(".Random.seed", globalenv())) rm(".Random.seed", envir = globalenv()) # each its own
  answer <- function(outcome) {
    parallel:::sendMaster(serialize(outcome, NULL, xdr = FALSE))
  }
  answer(tryCatch(list(warm = warm()), error = function(e) {
    exit <- if (inherits(e, "chips_start_error")) names(exit_codes)[exit_codes == e$exit_code] else "software"
    list(problem = conditionMessage(e), exit = exit)
  }))
  jobs <- if (!has_compiled()) file("stdin", open = "rb")
  repeat {
    job <- next_job(jobs)
    if (is.null(job)) end_worker() # the server has ended
    tempdir(check = TRUE) # which another worker may have taken along
    outcome <- tryCatch(work(job), interrupt = function(e) {
      list(problem = new_problem(503L, "overloaded", "the backend is stopping", list("Retry-After" = "1")))
    })
    # closeAllConnections() in a model: the next job could not be read.
    if (!is.null(jobs) && !is_open(jobs)) outcome$last <- TRUE
    if (sink.number() == 0L) sink(stderr())
    answer(outcome)
  }
}

next_job <- function(jobs) {
  if (is.null(jobs)) {
    return(.Call(compiled$receive, 0L))
  }
  size <- readBin(jobs, "integer", 1L)
  if (length(size)) unserialize(readBin(jobs, "raw", size))
}

# R's own quit() removes the temporary folder, which all of us share, and without it no request can be read any more.
quit_alone <- function() {
  for (name in c("quit", "q")) {
    base::unlockBinding(name, baseenv())
    assign(name, function(...) end_worker(), baseenv())
  }
}

is_open <- function(connection) tryCatch(isOpen(connection), error = function(e) FALSE)

# mcexit() would wait for a word from the server, for ever where that has been killed.
end_worker <- function() tools::pskill(Sys.getpid(), tools::SIGKILL)

# A worker that is started later has been given copies of the callers' connections, which must end when ours do.
close_sockets <- function() {
  open <- list.files("/proc/self/fd", full.names = TRUE)
  sockets <- grepl("^(socket|anon_inode):", Sys.readlink(open))
  parallel:::closeFD(as.integer(basename(open[sockets])))
}
