# chips_publish(): the same as the command `chips publish`, from an R session. It needs this file and R/json.R,
# R/manifest.R, R/packages.R, R/schema.R and R/problem.R; examples/co2/train.R shows how to source them.

#' Publish a trained model as a version that never changes.
#'
#' Writes the same bytes as `chips publish` would, so that every tool finds the digest it expects. To `gs://` it goes by
#' that command, whose uploads go on where they broke off.
#'
#' @param model An R object, saved as model.rds; or the path of a file or folder that is ready. Signature, samples and
#'   packages that chips_save() wrote into a folder are taken from there, unless they are given.
#' @param name,version The model's name, and a version that is not there yet.
#' @param inputs,outputs The signature: lists of [chips_tensor()].
#' @param samples Lists of `request`, `response` and perhaps `tolerance`; a backend scores the first when it starts.
#'   JSON's integers are R's integers here (`1L`), its floats are doubles.
#' @param store A folder, or gs://bucket/prefix; otherwise the environment variable CHIPS_ARTIFACTS.
#' @param packages Packages that the model needs; those that its classes and formulas name are found without.
#' @param by Who publishes.
#' @param rows "together" for a model whose prediction for a row depends on the rows next to it on purpose: one that
#'   ranks.
#' @return The artifact's address, for CHIPS_ARTIFACT; invisibly.
chips_publish <- function(model, name, version, inputs = list(), outputs = list(), samples = list(),
                          store = Sys.getenv("CHIPS_ARTIFACTS"), packages = character(), by = Sys.info()[["user"]],
                          rows = c("independent", "together")) {
  rows <- match.arg(rows)
  check_place(name, version, store)
  folder <- tempfile("chips-publish-")
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  if (is.character(model) && length(model) == 1L && file.exists(model)) {
    source <- model
  } else {
    source <- file.path(folder, "model.rds")
    saveRDS(model, source)
  }
  object <- if (!is.character(model)) model else if (grepl("[.]rds$", source, ignore.case = TRUE)) readRDS(source)
  described <- descriptions_in(source)
  runtime <- if (length(packages)) NULL else described$runtime
  if (is.null(runtime)) runtime <- runtime_of(unique(c(packages, needed_packages(object, packages))))
  signature <- if (length(inputs) + length(outputs)) NULL else described$signature
  if (is.null(signature)) signature <- list(inputs = unname(inputs), outputs = unname(outputs))
  if (length(samples) == 0L) samples <- described$samples
  if (startsWith(store, "gs://")) {
    return(publish_by_command(source, name, version, signature, samples, store, runtime, by, rows, folder))
  }
  files <- collect_files(source)
  manifest <- list(
    schema = 1L, model = name, version = version, created = format(Sys.time(), "%Y-%m-%dT%H:%M:%SZ", tz = "UTC"),
    created_by = by, format = guess_format(names(files)), runtime = runtime,
    files = unname(Map(describe_file, names(files), files)), signature = signature,
    samples = lapply(samples, complete_sample), rows = rows
  )
  target <- file.path(normalizePath(store_path(store), mustWork = FALSE), name, version)
  publish_to_folder(manifest, files, target)
}

check_place <- function(name, version, store) {
  if (!grepl(model_name_pattern, name)) stop(sprintf("'%s' is no name for a model: use a-z, 0-9, _ and -", name))
  if (!grepl(version_pattern, version)) stop(sprintf("'%s' is no version: use letters, digits, . _ and -", version))
  if (!nzchar(store)) stop("no artifact store is set: use store =, or set CHIPS_ARTIFACTS to a folder or gs://bucket")
}

#' One input or output of a model: datatype FP64, FP32, INT64, INT32, BOOL, BYTES (texts), ...
#'
#' @param categories All values of an input, in the order of the levels in training, for a model that does not hold
#'   them.
chips_tensor <- function(name, datatype = "FP64", shape = -1L, categories = NULL) {
  tensor <- list(name = name, datatype = match.arg(datatype, datatypes), shape = I(as.integer(shape)))
  if (!is.null(categories)) tensor$categories <- I(categories)
  tensor
}

publish_to_folder <- function(manifest, files, target) {
  existing <- file.path(target, "manifest.json")
  same_is_there <- function() {
    if (!file.exists(existing)) {
      return(FALSE)
    }
    published <- jsonlite::parse_json(readChar(existing, file.size(existing), useBytes = TRUE))
    ours <- jsonlite::parse_json(manifest_json(manifest))
    personal <- c("created", "created_by")
    if (!identical(published[setdiff(names(published), personal)], ours[setdiff(names(ours), personal)])) {
      stop(sprintf("%s is published already, with other content; a version never changes: use another", target),
           call. = FALSE)
    }
    message("unchanged  ", target, " (the same is there already)")
    TRUE
  }
  if (same_is_there()) {
    return(invisible(target))
  }
  # Everything is put together next to its place, and appears there in one rename, manifest and all.
  dir.create(dirname(target), recursive = TRUE, showWarnings = FALSE)
  draft <- tempfile(paste0(".", basename(target), "."), tmpdir = dirname(target))
  on.exit(unlink(draft, recursive = TRUE))
  for (path in names(files)) {
    copy <- file.path(draft, path)
    dir.create(dirname(copy), recursive = TRUE, showWarnings = FALSE)
    if (!file.copy(files[[path]], copy)) stop(sprintf("%s cannot be written", target), call. = FALSE)
  }
  for (file in manifest$files) {
    if (!identical(sha256_of(file.path(draft, file$path)), file$sha256)) {
      stop(sprintf("%s changed while it was published; publish again when it is finished", files[[file$path]]),
           call. = FALSE)
    }
  }
  writeBin(charToRaw(manifest_json(manifest)), file.path(draft, "manifest.json"))
  # Fails where the folder is there already, since it is not empty.
  if (!suppressWarnings(file.rename(draft, target)) && !same_is_there()) {
    stop(sprintf("%s cannot be written", target), call. = FALSE)
  }
  message("published  ", target)
  invisible(target)
}

publish_by_command <- function(source, name, version, signature, samples, store, runtime, by, rows, folder) {
  command <- Sys.which("chips")
  if (!nzchar(command)) {
    stop("publishing to gs:// needs the command `chips` on the PATH: pip install the gateway", call. = FALSE)
  }
  write <- function(value, file) {
    path <- file.path(folder, file)
    writeBin(charToRaw(pretty_json(value)), path)
    path
  }
  arguments <- c(
    "publish", source, "--model", name, "--version", version, "--store", store, "--by", by, "--rows", rows,
    "--signature", write(signature, "signature.json"),
    "--samples", write(lapply(samples, complete_sample), "samples.json"),
    rbind("--runtime", paste0(names(runtime), "=", unlist(runtime)))
  )
  # R searches its own folders for libraries first; a Python of another build must not.
  status <- system2(command, shQuote(arguments), env = "LD_LIBRARY_PATH=")
  if (status != 0L) stop("chips publish failed; it has said why", call. = FALSE)
  invisible(paste(sub("/+$", "", store), name, version, "", sep = "/"))
}

collect_files <- function(source) {
  if (!dir.exists(source)) {
    return(stats::setNames(source, basename(source)))
  }
  paths <- setdiff(sort(list.files(source, recursive = TRUE, all.files = TRUE, no.. = TRUE), method = "radix"),
                   c("manifest.json", paste0(descriptions, ".json")))
  if (length(paths) == 0) stop(sprintf("%s holds no files", source), call. = FALSE)
  stats::setNames(file.path(source, paths), paths)
}

descriptions <- c("signature", "samples", "runtime") # in a folder: parts of the manifest, and no files of the artifact

descriptions_in <- function(source) {
  files <- stats::setNames(file.path(source, paste0(descriptions, ".json")), descriptions)
  lapply(files[file.exists(files)], function(file) {
    text <- readChar(file, file.size(file), useBytes = TRUE)
    Encoding(text) <- "UTF-8"
    jsonlite::parse_json(text)
  })
}

describe_file <- function(path, file) {
  size <- file.size(file)
  list(path = path, bytes = if (size < 2^31) as.integer(size) else size, sha256 = sha256_of(file))
}

guess_format <- function(paths) {
  if (any(endsWith(tolower(paths), ".rds"))) "rds" else
    stop("no .rds file: for other formats use the command `chips publish`", call. = FALSE)
}

complete_sample <- function(sample) {
  tolerance <- if (is.null(sample$tolerance)) 1e-6 else sample$tolerance
  list(request = sort_names(sample$request), response = sort_names(sample$response), tolerance = as.double(tolerance))
}

# The command writes the keys of free objects in their order of bytes.
sort_names <- function(x) {
  if (!is.list(x)) {
    return(x)
  }
  x <- lapply(x, sort_names)
  if (is.null(names(x))) x else x[order(names(x), method = "radix")]
}

runtime_of <- function(packages) {
  versions <- vapply(packages, function(package) as.character(utils::packageVersion(package)), "")
  sort_names(as.list(c(R = as.character(getRversion()), stats::setNames(versions, packages))))
}

store_path <- function(store) {
  if (startsWith(store, "file://")) utils::URLdecode(sub("^file://[^/]*", "", store)) else store
}

manifest_json <- function(manifest) paste0(pretty_json(manifest), "\n")

#' JSON with an indent of two, byte for byte as the gateway writes it.
pretty_json <- function(x, indent = "") {
  inner <- paste0(indent, "  ")
  block <- function(open, items, close) {
    if (length(items)) items <- paste0("\n", paste0(inner, items, collapse = ",\n"), "\n", indent)
    paste0(open, items, close)
  }
  if (is.null(x)) {
    "null"
  } else if (is.list(x) && !is.null(names(x))) {
    items <- json_items(x, pretty_doubles, pretty_json, inner)
    block("{", paste0(json_string(names(x)), ": ", items, recycle0 = TRUE), "}")
  } else if (is.list(x) || length(x) != 1L || inherits(x, "AsIs")) {
    block("[", json_items(unclass(x), pretty_doubles, pretty_json, inner), "]")
  } else if (is.double(x)) {
    pretty_doubles(x)
  } else {
    json_value(x)
  }
}

pretty_doubles <- function(x) {
  # The exponent without padding: 1e-6.
  texts <- sub("e([+-]?)0*([1-9])", "e\\1\\2", sub("e[+]", "e", json_values(x)))
  large <- which(abs(x) >= 2^31 & x == trunc(x)) # the size of a large file
  texts[large] <- sprintf("%.0f", x[large])
  texts
}
