# The compiled part (src/): requests read straight into columns, answers written, bytes passed to the workers. It reads
# what is plainly right; everything else it leaves to the R code, which says what is wrong and where. Without it the
# answers are the same, and several times slower.

#' The entries of the library, by name; empty where there is none.
compiled <- new.env(parent = emptyenv())

has_compiled <- function() length(compiled) > 0L

#' Load the compiled part: the image's, or one that was compiled here before, or compile it now.
#'
#' @param home The backend's folder, with `src/` and in an image `lib/`.
#' @return TRUE where it is there; else a text that says why not.
use_compiled <- function(home, cache = tools::R_user_dir("chips", "cache"), log = NULL) {
  tryCatch({
    sources <- file.path(home, "src")
    name <- compiled_name(sources)
    there <- Filter(file.exists, file.path(c(file.path(home, "lib"), cache), name))
    if (length(there) == 0L) {
      missing <- c("g++", "make")[!nzchar(Sys.which(c("g++", "make")))]
      if (length(missing)) stop(paste("there is no", paste(missing, collapse = " and no ")), call. = FALSE)
      if (!is.null(log)) log$info("compiling src/ for this version of R, once")
      there <- build_compiled(sources, cache)
    }
    load_compiled(there[[1]])
    TRUE
  }, error = function(e) conditionMessage(e))
}

#' Compile `sources` into a library in `folder`; its path.
build_compiled <- function(sources, folder) {
  work <- tempfile("chips-build-")
  dir.create(work)
  on.exit(unlink(work, recursive = TRUE))
  file.copy(list.files(sources, full.names = TRUE), work)
  shlib <- c("CMD", "SHLIB", "-o", "chips.so", list.files(work, "[.]cpp$"))
  program <- file.path(R.home("bin"), "R")
  output <- in_folder(work, suppressWarnings(system2(program, shlib, stdout = TRUE, stderr = TRUE)))
  built <- file.path(work, "chips.so")
  if (!file.exists(built)) {
    stop(paste(c("src/ does not compile:", utils::tail(output, 5L)), collapse = " "), call. = FALSE)
  }
  path <- file.path(folder, compiled_name(sources))
  dir.create(dirname(path), recursive = TRUE, showWarnings = FALSE)
  # Two that start at once may both have compiled it.
  draft <- tempfile("chips-", tmpdir = dirname(path))
  if (!file.copy(built, draft) || !file.rename(draft, path)) stop(sprintf("%s cannot be written", path), call. = FALSE)
  path
}

in_folder <- function(folder, code) {
  before <- setwd(folder)
  on.exit(setwd(before))
  code
}

# In a folder named after what it was made from, so that it is never another version's.
compiled_name <- function(sources) {
  files <- sort(list.files(sources, "[.](cpp|h)$|^Makevars$", full.names = TRUE), method = "radix")
  text <- c(unname(tools::md5sum(files)), basename(files), as.character(getRversion()), R.version$platform)
  file.path(substr(openssl::sha256(paste(text, collapse = " ")), 1L, 20L), "chips.so")
}

load_compiled <- function(path) {
  routines <- getDLLRegisteredRoutines(dyn.load(path))$.Call
  for (name in names(routines)) assign(sub("^chips_", "", name), routines[[name]]$address, compiled)
}

# -- reading

kinds <- c(real = 1L, integer = 2L, whole_real = 3L, logical = 4L, text = 5L, category = 6L)

kind_of_datatype <- function(datatype, categories = NULL) {
  if (datatype %in% c("INT8", "INT16", "INT32", "UINT8", "UINT16")) {
    "integer"
  } else if (datatype %in% names(integer_limits)) {
    "whole_real"
  } else if (datatype == "BYTES") {
    if (length(categories)) "category" else "text"
  } else if (datatype == "BOOL") {
    "logical"
  } else {
    "real"
  }
}

limits_of <- function(datatype) {
  if (datatype %in% names(integer_limits)) integer_limits[[datatype]] else
    c(-1, 1) * (if (datatype %in% names(float_limits)) float_limits[[datatype]] else 0)
}

#' What the compiled part is told of each input; NULL where it cannot read them: arrays in a field, or no inputs.
reading_plan <- function(inputs) {
  known <- vapply(inputs, function(input) length(input$shape) <= 1L && input$datatype %in% datatypes, NA)
  if (length(inputs) == 0L || !all(known)) {
    return(NULL)
  }
  limits <- lapply(inputs, function(input) limits_of(input$datatype))
  categories <- lapply(inputs, function(input) {
    if (length(input$categories) == 0L) NULL else if (input$datatype == "BYTES") enc2utf8(input$categories) else
      as.double(unlist(input$categories))
  })
  list(
    names = enc2utf8(vapply(inputs, `[[`, "", "name")),
    kinds = unname(kinds[vapply(inputs, function(input) kind_of_datatype(input$datatype, input$categories), "")]),
    low = vapply(limits, `[[`, 0, 1L), high = vapply(limits, `[[`, 0, 2L), categories = categories
  )
}

datatype_plan <- function() {
  reading_plan(lapply(datatypes, function(name) list(name = name, datatype = name, shape = -1)))
}

#' A request as [read_instances()] and [read_tensors()] return it; NULL where these are to read it themselves.
read_compiled <- function(kind, body, plan, types) {
  infer <- kind == "infer"
  found <- if (infer) .Call(compiled$read_infer, body, plan, types) else
    .Call(compiled$read_instances, body, plan)
  if (is.null(found)) {
    return(NULL)
  }
  parameters <- read_parameters(list(parameters = value_of(found$parameters)))
  if (!infer) {
    return(list(rows = found$rows, count = found$count, parameters = parameters))
  }
  c(list(rows = found$rows, count = found$count, id = checked_id(value_of(found$id))),
    read_asked(parameters, value_of(found$outputs)))
}

value_of <- function(bytes) if (!is.null(bytes)) parse_body(bytes)$value
