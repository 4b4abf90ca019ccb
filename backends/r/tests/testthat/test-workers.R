# Real forks: each test ends them.
started <- function(size, work, log = quiet_log()) {
  pool <- new_pool(size, work, warm = function() NULL, log = log)
  withr::defer_parent(stop_workers(pool))
  start_workers(pool)
  pool
}
finish <- function(pool) {
  until <- clock_ms() + 30000
  while (outstanding_jobs(pool) > 0L && clock_ms() < until) hear_workers(pool, 0.05)
}
job <- function(done, body = raw(), deadline = Inf) list(kind = "x", body = body, deadline = deadline, done = done)

test_that("jobs run in other processes, as many at once as there are workers", {
  pool <- started(2L, function(job) list(json = as.character(Sys.getpid())))
  seen <- character()
  for (i in 1:6) submit_job(pool, job(function(outcome) seen <<- c(seen, outcome$json)))
  finish(pool)
  expect_length(seen, 6L)
  expect_length(unique(seen), 2L)
  expect_false(as.character(Sys.getpid()) %in% seen)
})

test_that("a large body arrives whole", {
  pool <- started(1L, function(job) list(json = paste(openssl::sha256(job$body))))
  body <- as.raw(rep(0:255, 20000L))
  answer <- NULL
  submit_job(pool, job(function(outcome) answer <<- outcome, body))
  finish(pool)
  expect_equal(answer$json, paste(openssl::sha256(body)))
  expect_true(answer$timing[["queue"]] >= 0)
})

test_that("the line is bounded, and who waits too long is refused", {
  pool <- started(1L, function(job) {
    Sys.sleep(0.5)
    list(json = "done")
  })
  outcomes <- list()
  keep <- function(outcome) outcomes[[length(outcomes) + 1L]] <<- outcome
  submit_job(pool, job(keep))
  for (i in seq_len(waiting_per_slot)) submit_job(pool, job(keep, deadline = clock_ms() + 50))
  expect_problem(submit_job(pool, job(keep)), "overloaded", "queue is full")
  finish(pool)
  expect_length(outcomes, 1L + waiting_per_slot)
  codes <- vapply(outcomes, function(outcome) if (is.null(outcome$problem)) "ok" else outcome$problem$code, "")
  expect_equal(sort(unique(codes)), c("deadline-exceeded", "ok"))
  expect_equal(sum(codes == "ok"), 1L)
})

test_that("a worker that dies is replaced, and only its own job fails", {
  log <- quiet_log()
  pool <- started(1L, function(job) {
    if (length(job$body)) tools::pskill(Sys.getpid(), tools::SIGKILL)
    list(json = "fine")
  }, log)
  answers <- list()
  keep <- function(outcome) answers[[length(answers) + 1L]] <<- outcome
  submit_job(pool, job(keep, as.raw(1L)))
  submit_job(pool, job(keep))
  finish(pool)
  expect_equal(answers[[1]]$problem$code, "prediction-failed")
  expect_equal(answers[[2]]$json, "fine")
  expect_match(log$lines(), "ended by itself", all = FALSE)
})

test_that("a worker that cannot be warmed up stops the start", {
  pool <- new_pool(1L, identity, warm = function() stop_start("another environment", "data"), log = quiet_log())
  on.exit(stop_workers(pool))
  error <- tryCatch(start_workers(pool), chips_start_error = identity)
  expect_equal(error$exit_code, 65L)
  expect_match(conditionMessage(error), "another environment")
})

test_that("an answer that is there before anybody waits for it arrives", {
  answer <- deferred()
  answer$settle("late")
  got <- NULL
  answer$then(function(value) paste("too", value))$then(function(value) got <<- value)
  until <- clock_ms() + 30000
  while (is.null(got) && clock_ms() < until) later::run_now(1)
  expect_equal(got, "too late")
})
