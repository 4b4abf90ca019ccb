#' Read the manifest of an artifact, as `chips publish` writes it; stops with what is wrong.
#'
#' A path that leaves the artifact's folder is wrong.
parse_manifest <- function(bytes) {
  wrong <- function(...) stop("its manifest.json cannot be read: ", sprintf(...), call. = FALSE)
  manifest <- tryCatch(parse_body(bytes)$value, error = function(e) wrong("%s", conditionMessage(e)))
  if (!is_object(manifest)) wrong("it is not an object")
  if (!identical(manifest$schema, 1L)) wrong("its schema is not 1: it is no manifest, or newer than this backend")
  for (name in c("model", "version", "format")) {
    if (!is.character(manifest[[name]])) wrong("%s must be a text", name)
  }
  if (!is_array(manifest$files)) wrong("files must be an array")
  lapply(manifest$files, check_entry, wrong)
  for (name in c("inputs", "outputs")) {
    tensors <- lapply(manifest$signature[[name]], read_tensor_type, wrong)
    twice <- anyDuplicated(vapply(tensors, `[[`, "", "name"))
    if (twice) wrong("the signature has two %s named %s", name, tensors[[twice]]$name)
    manifest$signature[[name]] <- tensors
  }
  right <- function(sample) is_object(sample) && is_object(sample$request) && is_object(sample$response)
  if (!all(vapply(manifest$samples, right, NA))) wrong("each of samples must have request and response")
  manifest
}

check_entry <- function(file, wrong) {
  if (!is_object(file) || !is.character(file$path) || !is.numeric(file$bytes) || !is.character(file$sha256)) {
    wrong("each of files must have path, bytes and sha256")
  }
  check_path(file$path)
}

check_path <- function(path) {
  parts <- strsplit(path, "/", fixed = TRUE)[[1]]
  if (!nzchar(path) || startsWith(path, "/") || ".." %in% parts || all(parts %in% c("", ".")) ||
        grepl("\\", path, fixed = TRUE)) {
    stop(sprintf("its manifest.json names '%s', which lies outside of the artifact", path), call. = FALSE)
  }
}

# One input or output; the first dimension is the row, -1 is any length.
read_tensor_type <- function(tensor, wrong) {
  shape <- if (is.null(tensor$shape)) list(-1L) else tensor$shape
  if (!is_object(tensor) || !is.character(tensor$name) || !is.character(tensor$datatype) || !is_array(shape) ||
        !all(vapply(shape, is.integer, NA))) {
    wrong("each input and output must have name, datatype and shape")
  }
  if (!tensor$datatype %in% datatypes) {
    wrong("%s has the datatype %s, which is none: one of %s", tensor$name, tensor$datatype, toString(datatypes))
  }
  read <- list(name = tensor$name, datatype = tensor$datatype, shape = unlist(shape))
  read$categories <- read_categories(tensor, wrong)
  read
}

# Texts for BYTES, whole numbers for integers; NULL where there are none.
read_categories <- function(tensor, wrong) {
  given <- tensor$categories
  if (is.null(given)) {
    return(NULL)
  }
  values <- if (is_array(given)) unlist(given) else NULL
  right <- switch(tensor$datatype, BYTES = is.character(values), if (tensor$datatype %in% names(integer_limits)) {
    is.numeric(values) && all(values == trunc(values))
  } else {
    FALSE
  })
  if (!isTRUE(right) || length(values) != length(given) || anyDuplicated(values)) {
    wrong("the categories of %s must be texts (BYTES) or whole numbers (INT), each once", tensor$name)
  }
  values
}

#' A file's path in the artifact: what `chips publish` put before it, to name objects by their content, is left out.
path_in_artifact <- function(file) {
  prefix <- paste0(substr(file$sha256, 1L, 16L), "/")
  if (startsWith(file$path, prefix)) substring(file$path, nchar(prefix) + 1L) else file$path
}

#' The path of the one file with such a suffix.
main_file <- function(manifest, suffix) {
  paths <- vapply(manifest$files, path_in_artifact, "")
  found <- paths[endsWith(tolower(paths), suffix)]
  if (length(found) != 1L) {
    stop(sprintf("expected one file that ends in %s, found %d", suffix, length(found)), call. = FALSE)
  }
  found
}
