# The binary tensor data extension of the Open Inference Protocol: tensors' bytes behind the JSON, little-endian and
# row-major.
# https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_data.md

length_header <- "Inference-Header-Content-Length"
binary_type <- "application/octet-stream"
value_bytes <- c(BOOL = 1, INT8 = 1, INT16 = 2, INT32 = 4, INT64 = 8, UINT8 = 1, UINT16 = 2, UINT32 = 4, UINT64 = 8,
                 FP16 = 2, FP32 = 4, FP64 = 8)

#' The JSON part of a body, and the bytes `behind` it; NULL for these where the request has no such header.
#'
#' @param length What the header says, as text; NULL without one.
split_body <- function(bytes, length = NULL) {
  if (is.null(length)) {
    return(list(head = bytes, behind = NULL))
  }
  if (!grepl("^[0-9]+$", length) || as.numeric(length) > base::length(bytes)) {
    stop_invalid(sprintf("%s must be one number of bytes, and at most the body's %d, got %s", length_header,
                         base::length(bytes), shown(length)))
  }
  size <- as.integer(length)
  list(head = utils::head(bytes, size), behind = if (size == 0L) bytes else bytes[-seq_len(size)])
}

#' Give each tensor in binary form its `bytes`, in the order of `inputs`; every byte must belong to one.
with_bytes <- function(tensors, behind) {
  at <- 0L
  for (index in seq_along(tensors)) {
    where <- sprintf("inputs[%d]", index - 1L)
    parameters <- if (is_object(tensors[[index]])) member(tensors[[index]], "parameters")
    size <- if (is_object(parameters)) member(parameters, "binary_data_size")
    if (is.null(size)) next
    if (is.null(behind)) stop_invalid(sprintf("%s: binary_data_size needs the header %s", where, length_header))
    if (!is.null(member(tensors[[index]], "data"))) {
      stop_invalid(sprintf("%s: give either data or binary_data_size", where))
    }
    if (!is.integer(size) || size < 0L) {
      stop_invalid(sprintf("%s.parameters.binary_data_size must be a number of bytes, got %s", where, shown(size)))
    }
    if (size > length(behind) - at) {
      stop_invalid(sprintf("%s.parameters.binary_data_size is %d, but the body has only %d bytes left for it", where,
                           size, length(behind) - at))
    }
    tensors[[index]]$bytes <- I(behind[at + seq_len(size)])
    at <- at + size
  }
  if (at < length(behind)) {
    stop_invalid(sprintf("the body ends with %d bytes that belong to no tensor: look at binary_data_size of each",
                         length(behind) - at))
  }
  tensors
}

#' The values of a tensor's bytes as a vector; NaN is missing.
unpack <- function(bytes, datatype, count, where) {
  if (datatype == "BYTES") {
    return(unpack_texts(bytes, count, where))
  }
  size <- value_bytes[[datatype]]
  if (length(bytes) != count * size) {
    stop_invalid(sprintf("%s: the shape means %.0f bytes of %s, binary_data_size is %d", where, count * size, datatype,
                         length(bytes)))
  }
  values <- unpack_numbers(bytes, datatype, count)
  wrong <- if (datatype == "BOOL") values > 1L else is.infinite(values)
  if (any(wrong, na.rm = TRUE)) {
    at <- utils::head(which(wrong), enough_problems)
    expected <- if (datatype == "BOOL") "a byte that is 0 or 1" else "a finite number"
    stop_invalid(sprintf("%s.data[%d]: expected %s, got %s", where, at - 1L, expected, values[at]))
  }
  if (datatype == "BOOL") as.logical(values) else values
}

unpack_numbers <- function(bytes, datatype, count) {
  integers <- function(size, signed) readBin(bytes, "integer", length(bytes) / size, size, signed, "little")
  halves <- function() matrix(as.double(integers(2L, FALSE)), nrow = value_bytes[[datatype]] / 2)
  switch(datatype,
    FP64 = , FP32 = {
      values <- readBin(bytes, "double", count, value_bytes[[datatype]], endian = "little")
      replace(values, is.nan(values), NA_real_)
    },
    FP16 = from_half(integers(2L, FALSE)), INT8 = integers(1L, TRUE), INT16 = integers(2L, TRUE),
    UINT16 = integers(2L, FALSE),
    # R has no -2^31, and reads a missing value there.
    INT32 = {
      values <- integers(4L, TRUE)
      if (anyNA(values)) replace(as.double(values), is.na(values), -2^31) else values
    },
    UINT32 = as.vector(c(1, 2^16) %*% halves()), UINT64 = as.vector(2^(16 * 0:3) %*% halves()),
    INT64 = {
      parts <- halves()
      parts[4, ] <- parts[4, ] - 2^16 * (parts[4, ] >= 2^15)
      # Both halves apart: in one sum, what is beyond 2^53 on the way would be lost.
      as.vector(2^32 * (parts[3, ] + 2^16 * parts[4, ]) + (parts[1, ] + 2^16 * parts[2, ]))
    },
    integers(1L, FALSE)
  )
}

# IEEE 754 binary16.
from_half <- function(bits) {
  sign <- ifelse(bits >= 2^15, -1, 1)
  exponent <- bits %/% 1024 %% 32
  fraction <- bits %% 1024
  values <- ifelse(exponent == 0, fraction * 2^-24, (1024 + fraction) * 2^(exponent - 25))
  values[exponent == 31] <- ifelse(fraction[exponent == 31] == 0, Inf, NA_real_)
  sign * values
}

unpack_texts <- function(bytes, count, where) {
  texts <- character(min(count, length(bytes) %/% 4))
  at <- 0
  found <- 0
  while (at < length(bytes)) {
    end <- at + 4
    if (end <= length(bytes)) end <- end + sum(as.integer(bytes[at + 1:4]) * 256^(0:3))
    if (end > length(bytes)) {
      stop_invalid(sprintf("%s: the text %.0f goes beyond the tensor's %d bytes", where, found, length(bytes)))
    }
    if (found == count) break
    found <- found + 1
    texts[[found]] <- text_of_bytes(bytes[at + 4 + seq_len(end - at - 4)], sprintf("%s.data[%.0f]", where, found - 1))
    at <- end
  }
  if (found != count || at != length(bytes)) {
    stop_invalid(sprintf("%s: the shape means %.0f texts, binary_data_size has %s", where, count,
                         if (found < count) sprintf("%.0f", found) else sprintf("%.0f bytes more", length(bytes) - at)))
  }
  texts
}

text_of_bytes <- function(bytes, place) {
  if (any(bytes == as.raw(0L))) stop_invalid(paste0(place, ": a text with the character U+0000, which R cannot hold"))
  text <- rawToChar(bytes)
  Encoding(text) <- "UTF-8"
  if (!validUTF8(text)) stop_invalid(paste0(place, ": the text is not UTF-8"))
  text
}

# -- out

#' The bytes of an output's values; NULL where one is missing and the datatype cannot say so.
pack <- function(values, datatype) {
  if (datatype == "BYTES") {
    texts <- as_texts(values)
    return(if (!anyNA(texts)) as.raw(unlist(lapply(texts, function(text) {
      bytes <- charToRaw(text)
      c(writeBin(length(bytes), raw(), endian = "little"), bytes)
    }))))
  }
  if (startsWith(datatype, "FP")) {
    return(pack_floats(as.double(values), datatype))
  }
  if (anyNA(values)) {
    return(NULL)
  }
  if (datatype == "BOOL") as.raw(values) else pack_integers(values, value_bytes[[datatype]])
}

# As the answer in JSON would have them.
as_texts <- function(values) {
  if (is.list(values)) values <- vapply(values, json_value, "")
  if (inherits(values, c("POSIXct", "Date"))) values <- json_times(values)
  texts <- enc2utf8(as.character(values))
  broken <- !is.na(texts) & !validUTF8(texts)
  texts[broken] <- iconv(texts[broken], "UTF-8", "UTF-8", sub = "?")
  texts
}

# Whatever is missing or not finite is the quiet NaN; R's own NA has something in it.
pack_floats <- function(values, datatype) {
  missing <- !is.finite(values)
  values[missing] <- 0
  size <- value_bytes[[datatype]]
  bytes <- if (datatype == "FP16") writeBin(to_half(values), raw(), 2L, "little") else
    writeBin(values, raw(), size, "little")
  dim(bytes) <- c(size, length(values))
  nan <- switch(datatype, FP16 = c(0L, 0x7E), FP32 = c(0L, 0L, 0xC0, 0x7F), c(rep(0L, 6L), 0xF8, 0x7F))
  bytes[, missing] <- as.raw(nan)
  as.vector(bytes)
}

# IEEE 754 binary16: to the nearest, of two to the even one.
to_half <- function(values) {
  size <- abs(values)
  exponent <- pmax(-14, floor(log2(pmax(size, 2^-30))))
  exponent <- exponent - (2^exponent > size & exponent > -14) + (2^(exponent + 1) <= size)
  steps <- round(size / 2^(exponent - 10))
  bits <- ifelse(steps < 1024, steps, (exponent + 15) * 1024 + steps - 1024)
  as.integer(bits + 2^15 * (values < 0 | 1 / values == -Inf))
}

pack_integers <- function(values, size) {
  if (inherits(values, "integer64") && size == 8L) {
    return(writeBin(unclass(as.vector(values)), raw(), endian = "little")) # its digits lie in the bytes of a double
  }
  if (size < 4L || is.integer(values) && size == 4L) {
    return(writeBin(as.integer(values), raw(), size, "little"))
  }
  low <- as.double(values) %% 2^32
  high <- floor(as.double(values) / 2^32) %% 2^32
  halves <- rbind(low %% 2^16, low %/% 2^16, if (size == 8L) rbind(high %% 2^16, high %/% 2^16))
  writeBin(as.integer(halves), raw(), 2L, "little")
}
