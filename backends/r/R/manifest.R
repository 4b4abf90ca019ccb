#' Read the manifest of an artifact, as `chips publish` writes it; stops with what is wrong.
#'
#' The rules are those of every reader of a manifest: backends/manifest-cases.json.
parse_manifest <- function(bytes) {
  wrong <- function(...) stop("its manifest.json cannot be read: ", sprintf(...), call. = FALSE)
  manifest <- tryCatch(parse_body(bytes, unique = FALSE)$value, error = function(e) wrong("%s", conditionMessage(e)))
  manifest <- last_of_each_name(manifest)
  if (!is_object(manifest)) wrong("it is not an object")
  if (!identical(manifest[["schema"]], 1L) || grepl('"schema"[[:space:]]*:[[:space:]]*1[.eE]', rawToChar(bytes))) {
    wrong("its schema is not 1: it is no manifest, or newer than this backend")
  }
  check_names(manifest, wrong)
  check_files(manifest[["files"]], rawToChar(bytes), wrong)
  check_runtime(manifest, wrong)
  check_samples(manifest, wrong)
  if (given(manifest, "signature") && !is_object(manifest$signature)) wrong("signature must be an object")
  for (name in c("inputs", "outputs")) {
    if (given(manifest$signature, name) && !is_array(manifest$signature[[name]])) wrong("%s must be an array", name)
    tensors <- lapply(manifest$signature[[name]], read_tensor_type, wrong)
    if (anyDuplicated(vapply(tensors, `[[`, "", "name"))) wrong("two of the %s have one name", name)
    manifest$signature[[name]] <- tensors
  }
  manifest
}

# In a manifest, of several members with one name the last one counts, as in the other languages.
last_of_each_name <- function(x) {
  if (!is.list(x)) {
    return(x)
  }
  if (!is.null(names(x))) x <- x[!duplicated(names(x), fromLast = TRUE)]
  lapply(x, last_of_each_name)
}

given <- function(object, name) name %in% names(object)

# A text from a manifest, as it may stand in a message.
printable <- function(text) json_ascii(json_string(substr(text, 1L, 200L)))

is_text <- function(x) is.character(x) && length(x) == 1L

check_names <- function(manifest, wrong) {
  for (name in c("model", "version", "format")) {
    if (!is_text(manifest[[name]])) wrong("%s must be a text", name)
  }
  for (name in c("created", "created_by")) {
    if (given(manifest, name) && !is_text(manifest[[name]])) wrong("%s must be a text", name)
  }
  if (!is_name(manifest$model) || !grepl(version_pattern, manifest$version)) {
    wrong("%s@%s is no model and version", printable(manifest$model), printable(manifest$version))
  }
  if (!nzchar(manifest$format)) wrong("its format is empty")
  check_behaviour(manifest, wrong)
}

check_behaviour <- function(manifest, wrong) {
  if (given(manifest, "rows") && !isTRUE(manifest$rows %in% c("independent", "together"))) {
    wrong("rows are neither independent nor together")
  }
  if (given(manifest, "pure") && !isTRUE(manifest$pure) && !isFALSE(manifest$pure)) {
    wrong("pure is neither true nor false")
  }
}

is_name <- function(text) grepl(model_name_pattern, text) && text != "v2"

check_files <- function(files, text, wrong) {
  if (!is_array(files) || !length(files)) wrong("files must be an array that names some")
  for (file in files) check_file_entry(file, text, wrong)
  places <- vapply(files, path_in_artifact, "")
  if ("manifest.json" %in% places) wrong("it names manifest.json, which is itself")
  if (anyDuplicated(places)) wrong("it names %s twice", printable(places[duplicated(places)][[1]]))
  below <- places[vapply(strsplit(places, "/", fixed = TRUE), function(parts) {
    folders <- Reduce(function(above, part) paste(above, part, sep = "/"), parts[-length(parts)], accumulate = TRUE)
    any(folders %in% places)
  }, NA)]
  if (length(below)) wrong("%s lies below another file", printable(below[[1]]))
}

check_file_entry <- function(file, text, wrong) {
  if (!is_object(file) || !is_text(file[["path"]]) || !is.numeric(file[["bytes"]]) || !is_text(file[["sha256"]])) {
    wrong("each of files must have path, bytes and sha256")
  }
  check_path(file$path)
  if (!grepl("^[0-9a-f]{64}$", file$sha256, perl = TRUE) || grepl("\n", file$sha256, fixed = TRUE) ||
        !is_size(file$bytes, text)) {
    wrong("%s has no valid size and SHA-256", printable(file$path))
  }
}

# A whole number that was written as one, below 2^53: jsonlite reads 3e9 and 3000000000 alike.
is_size <- function(bytes, text) {
  bytes >= 0 && bytes < 2^53 && bytes == trunc(bytes) &&
    !grepl('"bytes"[[:space:]]*:[[:space:]]*-?[0-9]+[.eE]|"bytes"[[:space:]]*:[[:space:]]*-', text)
}

check_path <- function(path) {
  parts <- strsplit(paste0(path, "/"), "/", fixed = TRUE)[[1]]
  if (!nzchar(path) || endsWith(path, "/") || any(parts %in% c("", ".", "..")) ||
        grepl("[\\\\\\x01-\\x1f\\x7f-\\x{9f}]", path, perl = TRUE)) {
    stop(sprintf("its manifest.json names %s, which lies outside of the artifact", printable(path)), call. = FALSE)
  }
}

check_runtime <- function(manifest, wrong) {
  runtime <- manifest[["runtime"]]
  if (given(manifest, "runtime") && !(is_object(runtime) && all(vapply(runtime, is_text, NA)))) {
    wrong("runtime must be an object of texts")
  }
}

check_samples <- function(manifest, wrong) {
  samples <- manifest[["samples"]]
  if (given(manifest, "samples") && !is_array(samples)) wrong("samples must be an array")
  for (sample in samples) {
    if (!is_object(sample) || !is_object(sample[["request"]]) || !is_object(sample[["response"]])) {
      wrong("each of samples must have request and response")
    }
    if (given(sample, "tolerance") && !is_tolerance(sample[["tolerance"]])) {
      wrong("a tolerance is not a number from 0 on")
    }
  }
}

is_tolerance <- function(x) is.numeric(x) && is.finite(x) && x >= 0

# One input or output; the first dimension is the row, -1 is any length.
read_tensor_type <- function(tensor, wrong) {
  if (!is_object(tensor) || !is_text(tensor[["name"]]) || !is_text(tensor[["datatype"]])) {
    wrong("each input and output must have name, datatype and shape")
  }
  shape <- if (given(tensor, "shape")) tensor$shape else list(-1L)
  if (!nzchar(tensor$name) || !is_array(shape) || !all(vapply(shape, is.integer, NA)) || any(unlist(shape) < -1L)) {
    wrong("each input and output must have name, datatype and shape")
  }
  if (!tensor$datatype %in% datatypes) {
    wrong("%s has the unknown datatype %s", printable(tensor$name), printable(tensor$datatype))
  }
  read <- list(name = tensor$name, datatype = tensor$datatype, shape = unlist(shape))
  read$categories <- read_categories(tensor, wrong)
  read
}

# Texts for BYTES, whole numbers for integers; NULL where there are none.
read_categories <- function(tensor, wrong) {
  listed <- tensor[["categories"]]
  if (is.null(listed)) {
    return(NULL)
  }
  values <- if (is_array(listed)) unlist(listed)
  right <- if (tensor$datatype == "BYTES") is.character(values) else
    tensor$datatype %in% names(integer_limits) && is.numeric(values) && all(values == trunc(values))
  if (!isTRUE(right) || length(values) != length(listed) || anyDuplicated(values)) {
    wrong("the categories of %s must be texts (BYTES) or whole numbers (INT), each once", printable(tensor$name))
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
