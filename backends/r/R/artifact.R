#' Bring the artifact here: fetched once, checked byte for byte before any loader opens it, kept by its digest.
#'
#' Two processes may do this at once. Stops with a `chips_start_error`.
#'
#' @param address `gs://bucket/prefix/`, `file://` or a folder, used where it is.
#' @param wanted A list of `model`, `version` and `artifact_digest`, as the environment says them; "" is any.
#' @return A list of `folder`, `manifest`, `digest` (of the manifest, which holds those of all files) and `address`.
obtain <- function(address, cache_dir, wanted, log, client = gcs_client()) {
  source <- open_source(address, client, log)
  bytes <- source$manifest()
  manifest <- tryCatch(parse_manifest(bytes), error = function(e) {
    stop_start(sprintf("%s: %s", source$address, conditionMessage(e)), "data")
  })
  digest <- paste(openssl::sha256(bytes))
  check_wanted(wanted, manifest, paste0("sha256:", digest), source$address)
  folder <- source$folder
  if (is.null(folder) || !is_laid_out(folder, manifest)) {
    folder <- file.path(cache_dir, manifest$model, digest)
    fetch(source, manifest, folder, cache_dir, log)
  } else {
    for (file in manifest$files) check_file(file.path(folder, path_in_artifact(file)), file)
  }
  list(folder = folder, manifest = manifest, digest = paste0("sha256:", digest), address = source$address)
}

check_wanted <- function(wanted, manifest, digest, address) {
  if (!grepl(model_name_pattern, manifest$model) || !grepl(version_pattern, manifest$version)) {
    stop_start(sprintf("%s: its manifest.json has no proper model and version", address), "data")
  }
  model <- if (nzchar(wanted$model)) wanted$model else manifest$model
  version <- if (nzchar(wanted$version)) wanted$version else manifest$version
  if (model != manifest$model || version != manifest$version) {
    stop_start(sprintf("%s is %s@%s, but CHIPS_MODEL and CHIPS_VERSION say %s@%s: correct one of them", address,
                       manifest$model, manifest$version, model, version), "data")
  }
  if (!wanted$artifact_digest %in% c("", digest)) {
    stop_start(sprintf(paste("the manifest at %s has the digest %s, but CHIPS_ARTIFACT_DIGEST says %s: it is not what",
                             "was released, so nothing of it is loaded"), address, digest, wanted$artifact_digest),
               "data")
  }
}

# Whether the files lie as the model wants them; not so where a bucket was copied as it was (KServe does).
is_laid_out <- function(folder, manifest) {
  all(vapply(manifest$files, function(file) {
    path_in_artifact(file) == file$path || file.exists(file.path(folder, path_in_artifact(file)))
  }, NA))
}

open_source <- function(address, client, log) {
  if (startsWith(address, "gs://")) {
    parts <- regmatches(address, regexec("^gs://([^/]+)/*(.*?)/*$", address, perl = TRUE))[[1]]
    if (length(parts) == 0) {
      stop_start(sprintf("CHIPS_ARTIFACT=%s names no bucket: write gs://bucket/prefix/", address), "no_input")
    }
    return(bucket_source(parts[[2]], parts[[3]], client, log))
  }
  if (grepl("^[a-z][a-z0-9+.-]*:", address) && !startsWith(address, "file:")) {
    stop_start(sprintf("CHIPS_ARTIFACT=%s: use gs://bucket/prefix/, file:// or a folder", address), "no_input")
  }
  folder_source(if (startsWith(address, "file:")) utils::URLdecode(sub("^file:(//[^/]*)?", "", address)) else address)
}

folder_source <- function(folder) {
  list(address = folder, folder = folder, manifest = function() {
    path <- file.path(folder, "manifest.json")
    if (!file.exists(path)) {
      stop_start(sprintf("there is no %s: is CHIPS_ARTIFACT right, and has the version been published?", path),
                 "no_input")
    }
    stop_unless_readable(path)
    readBin(path, "raw", file.size(path))
  }, fetch = function(file, target, progress) {
    path <- file.path(folder, file$path)
    check_file(path, file)
    if (!file.symlink(normalizePath(path), target)) stop_not_writable(dirname(target))
    progress(file$bytes)
  })
}

bucket_source <- function(bucket, prefix, client, log) {
  object <- function(name) if (nzchar(prefix)) paste0(prefix, "/", name) else name
  list(
    address = paste0(gs_address(bucket, prefix), "/"),
    manifest = function() gcs_read(client, bucket, object("manifest.json"), log),
    fetch = function(file, target, progress) {
      gcs_download(client, bucket, object(file$path), target, file$bytes, progress, log)
      if (file.size(target) != file$bytes) stop_disk_full(dirname(target))
      check_file(target, file, paste0(gs_address(bucket, object(file$path))))
    }
  )
}

# -- the cache

fetch <- function(source, manifest, folder, cache_dir, log) {
  make_folder(dirname(folder), cache_dir)
  # Let go by the system, whatever becomes of us.
  lock <- tryCatch(filelock::lock(paste0(folder, ".lock")), error = function(e) stop_not_writable(cache_dir))
  on.exit(filelock::unlock(lock))
  if (is_whole(folder, manifest)) {
    return(invisible())
  }
  # Drafts of processes that were killed: we hold the lock, so nobody is at work on one.
  leftovers <- Sys.glob(file.path(dirname(folder), paste0(".", basename(folder), ".*")))
  unlink(leftovers, recursive = TRUE)
  draft <- tempfile(paste0(".", basename(folder), "."), tmpdir = dirname(folder))
  on.exit(unlink(draft, recursive = TRUE), add = TRUE, after = FALSE)
  progress <- tenths(sum(vapply(manifest$files, function(file) as.double(file$bytes), 0)), log)
  for (file in manifest$files) {
    target <- file.path(draft, path_in_artifact(file))
    make_folder(dirname(target), cache_dir)
    tryCatch(source$fetch(file, target, progress), chips_disk_error = function(e) stop_disk_full(cache_dir))
  }
  if (!file.rename(draft, folder)) stop_not_writable(cache_dir)
}

# Whether the cache holds every file as it should be. Looked at each start: an RDS file can run code.
is_whole <- function(folder, manifest) {
  if (!dir.exists(folder)) {
    return(FALSE)
  }
  whole <- vapply(manifest$files, function(file) {
    path <- file.path(folder, path_in_artifact(file))
    file.exists(path) && identical(sha256_of(path), file$sha256)
  }, NA)
  if (!all(whole)) unlink(folder, recursive = TRUE)
  all(whole)
}

# In blocks. Raw, since R would decompress a gzipped file, as most RDS files are, without being asked.
sha256_of <- function(path) paste(openssl::sha256(file(path, raw = TRUE)))

check_file <- function(path, file, where = path) {
  if (!file.exists(path)) {
    stop_start(sprintf("%s is missing, though the manifest lists it: publish the model again", where), "no_input")
  }
  stop_unless_readable(path)
  if (!identical(sha256_of(path), file$sha256)) stop_mismatch(where)
}

stop_mismatch <- function(where) {
  stop_start(paste(where, "is not the file that was published: its SHA-256 or size is not what the manifest says.",
                   "It is not loaded. Publish the model again under a new version."), "data")
}

stop_unless_readable <- function(path) {
  if (file.access(path, 4L) != 0L) stop_start(sprintf("%s cannot be read: Permission denied", path), "no_permission")
}

make_folder <- function(path, cache_dir) {
  if (dir.exists(path)) {
    return(invisible())
  }
  why <- ""
  made <- withCallingHandlers(dir.create(path, recursive = TRUE), warning = function(w) {
    why <<- conditionMessage(w)
    invokeRestart("muffleWarning")
  })
  # Another process may have made it between the two looks.
  if (made || dir.exists(path)) {
    return(invisible())
  }
  if (grepl("No space left|quota", why)) stop_disk_full(cache_dir)
  if (grepl("denied|not permitted|[Rr]ead-only", why)) stop_not_writable(cache_dir)
  stop_start(sprintf("%s cannot be used: %s", cache_dir, why), "io")
}

stop_disk_full <- function(cache_dir) {
  stop_start(sprintf(paste("the disk with %s is full: give it more room (on Cloud Run the disk is memory)",
                           "or name another folder in CHIPS_CACHE_DIR"), cache_dir), "io")
}

stop_not_writable <- function(cache_dir) {
  stop_start(sprintf("no permission to write %s: name another folder in CHIPS_CACHE_DIR", cache_dir), "no_permission")
}

# One log line each ten percent.
tenths <- function(total, log) {
  done <- 0
  function(count) {
    before <- (done * 10) %/% max(total, 1)
    done <<- done + count
    now <- (done * 10) %/% max(total, 1)
    if (now > before) log$info(sprintf("fetched %.0f %% of the artifact", now * 10), fetched_bytes = done)
  }
}
