# sysexits.h
exit_codes <- list(data = 65L, no_input = 66L, unavailable = 69L, software = 70L, os = 71L, io = 74L,
                   no_permission = 77L, config = 78L)

#' Stop the start: the text says which object and what to do, the code how the process ends.
stop_start <- function(message, exit_code) {
  stop(structure(class = c("chips_start_error", "error", "condition"),
                 list(message = message, call = NULL, exit_code = exit_codes[[exit_code]])))
}
