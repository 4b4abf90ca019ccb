# JSON in and out. In: jsonlite's parser, made as strict as the standard. Out: by hand, since toJSON() takes 0.1 ms
# whatever its size, rounds to 15 digits, and writes one prediction as a bare number.

deepest_nesting <- 950L

#' Parse a request body; a problem says at which line and column it is not JSON.
#'
#' `parse_json()` and not `fromJSON()`: the latter opens the URLs and files that a text names. Nothing is simplified:
#' jsonlite would turn `[1, "a"]` into texts without a word. It also takes comments, lone surrogates and `1e400`, and
#' its depth is the depth of R's own stack, so these are looked for first.
#'
#' @param unique Whether a name that stands twice in one object is refused.
#' @return A list of the `value`.
parse_body <- function(bytes, unique = TRUE) {
  zero <- grepRaw(as.raw(0L), bytes, fixed = TRUE)
  if (length(zero)) {
    stop_malformed(paste("the body is not JSON: a zero byte at", place_of(bytes, zero - 1L)))
  }
  if (length(bytes) == 0) {
    stop_malformed("the body is empty: send a JSON object, at line 1, column 1")
  }
  text <- rawToChar(bytes)
  Encoding(text) <- "UTF-8"
  if (!validUTF8(text)) {
    stop_malformed(paste("the body is not UTF-8: send it in UTF-8; the first wrong byte is at",
                         place_of(bytes, utf8_bytes(text))))
  }
  if (identical(utils::head(bytes, 3L), as.raw(c(0xEF, 0xBB, 0xBF)))) {
    stop_malformed("the body is not JSON: a byte order mark at line 1, column 1; send UTF-8 without one")
  }
  valid <- jsonlite::validate(text)
  if (!valid) {
    what <- strsplit(attr(valid, "err"), "\n", fixed = TRUE)[[1]][[1]]
    what <- sub("[.]?[[:space:]]*$", "", sub("^(lexical|parse) error: ", "", what))
    place <- place_of(bytes, max(0L, attr(valid, "offset") - 1L))
    near <- substr(text, max(1L, attr(valid, "offset") - 20L), attr(valid, "offset") + 20L)
    hint <- if (grepl("NaN|Infinity", near)) "; send null for NaN and infinities" else ""
    stop_malformed(sprintf("the body is not JSON: %s at %s%s", what, place, hint))
  }
  check_nesting(text)
  check_escapes(text)
  check_overflow(text)
  value <- jsonlite::parse_json(text, simplifyVector = FALSE)
  if (unique && !is.null(name <- repeated_name(value))) {
    stop_malformed(sprintf("the name %s stands twice in one object, and nobody knows which value counts",
                           json_string(name)))
  }
  list(value = value)
}

# A name that stands twice in one object; NULL where there is none. Level by level, since R's stack is short.
repeated_name <- function(value) {
  level <- if (is.list(value)) list(value)
  while (length(level)) {
    for (item in level) {
      twice <- anyDuplicated(names(item))
      if (twice) {
        return(names(item)[[twice]])
      }
    }
    inner <- unlist(level, recursive = FALSE, use.names = FALSE)
    level <- if (is.list(inner)) inner[vapply(inner, is.list, NA)]
  }
  NULL
}

# RFC 3629, section 4.
utf8_prefix <- paste0(
  "^(?>[\\x01-\\x7F]++|[\\xC2-\\xDF][\\x80-\\xBF]|\\xE0[\\xA0-\\xBF][\\x80-\\xBF]|",
  "[\\xE1-\\xEC\\xEE\\xEF][\\x80-\\xBF]{2}|\\xED[\\x80-\\x9F][\\x80-\\xBF]|",
  "\\xF0[\\x90-\\xBF][\\x80-\\xBF]{2}|[\\xF1-\\xF3][\\x80-\\xBF]{3}|",
  "\\xF4[\\x80-\\x8F][\\x80-\\xBF]{2})*+"
)

# How many bytes before the first that is not UTF-8.
utf8_bytes <- function(text) max(0L, attr(regexpr(utf8_prefix, text, perl = TRUE, useBytes = TRUE), "match.length"))

place_of <- function(bytes, offset) {
  before <- utils::head(bytes, offset)
  breaks <- which(before == as.raw(10L))
  sprintf("line %d, column %d", length(breaks) + 1L, as.integer(offset - max(0L, breaks)) + 1L)
}

without_strings <- function(text) gsub('"(?:[^"\\\\]++|\\\\.)*+"', '""', text, perl = TRUE, useBytes = TRUE)

# How each byte changes the depth. A table, since %in% on bytes takes ten times as long.
nesting_steps <- replace(replace(integer(256L), utf8ToInt("[") + c(1L, 33L), 1L), utf8ToInt("]") + c(1L, 33L), -1L)

check_nesting <- function(text) {
  steps <- function(text) nesting_steps[as.integer(charToRaw(text)) + 1L]
  if (sum(steps(text) == 1L) > deepest_nesting && max(cumsum(steps(without_strings(text)))) > deepest_nesting) {
    stop_malformed("the body is nested too deeply")
  }
}

check_escapes <- function(text) {
  if (!grepl("\\u", text, fixed = TRUE)) {
    return(invisible())
  }
  text <- gsub("\\\\", "", text, fixed = TRUE) # an escaped backslash escapes nothing
  whole_pairs <- gsub("\\\\u[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2}", "", text)
  if (grepl("\\\\u[dD][89a-fA-F]", whole_pairs)) {
    stop_malformed("the body is not JSON: half of a surrogate pair in a string")
  }
  if (grepl("\\u0000", text, fixed = TRUE)) {
    stop_invalid("the body has a string with the character U+0000, which R cannot hold")
  }
}

# Numbers beyond the largest double: jsonlite reads them as Inf.
check_overflow <- function(text) {
  if (!grepl("[0-9][eE][+]?[0-9]{3}|[0-9]{309}", text, perl = TRUE)) {
    return(invisible())
  }
  numbers <- number_literals(text)
  float <- grepl("[.eE]", numbers)
  if (any(is.infinite(as.numeric(numbers[float]))) || any(nchar(numbers[!float]) > 4300L)) {
    stop_malformed("the body is not JSON: a number is out of range; send null for what is not finite")
  }
}

number_literals <- function(text) {
  bare <- without_strings(text)
  regmatches(bare, gregexpr("-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?", bare))[[1]]
}

# -- out

#' Texts as JSON strings.
json_string <- function(x, ascii = FALSE) {
  x <- enc2utf8(unname(x))
  quoted <- if (has_compiled()) .Call(compiled$quote, x, ascii)
  if (!is.null(quoted)) {
    return(quoted)
  }
  broken <- !validUTF8(x)
  if (any(broken)) x[broken] <- iconv(x[broken], "UTF-8", "UTF-8", sub = "?")
  x <- gsub('(["\\\\])', "\\\\\\1", x)
  if (any(grepl("[\x01-\x1f]", x, useBytes = TRUE))) {
    for (code in 1:31) x <- gsub(rawToChar(as.raw(code)), sprintf("\\u%04x", code), x, fixed = TRUE)
  }
  quoted <- paste0('"', x, '"', recycle0 = TRUE)
  if (ascii) vapply(quoted, json_ascii, "", USE.NAMES = FALSE) else quoted
}

#' The same JSON in ASCII alone.
json_ascii <- function(text) {
  if (!grepl("[^ -~]", text, perl = TRUE)) {
    return(text)
  }
  codes <- utf8ToInt(text)
  high <- codes > 0xFFFF
  units <- ifelse(high, sprintf("\\u%04x\\u%04x", 0xD800L + (codes - 0x10000L) %/% 0x400L,
                                0xDC00L + (codes - 0x10000L) %% 0x400L), sprintf("\\u%04x", codes))
  plain <- codes >= 32L & codes < 127L
  units[plain] <- strsplit(intToUtf8(codes[plain]), "")[[1]]
  paste(units, collapse = "")
}

#' One JSON text for each element of a vector; what is missing or not finite is null.
#'
#' @param whole Whether whole numbers are to look like integers; else a double looks like one, `3.0`.
json_values <- function(x, whole = FALSE) {
  if (is.factor(x)) {
    x <- as.character(x)
  } else if (inherits(x, "integer64")) {
    # The digits, by the package bit64 that made them; as doubles they would be other numbers.
    return(ifelse(is.na(x), "null", as.character(x)))
  } else if (inherits(x, c("POSIXct", "Date"))) {
    x <- json_times(x)
  }
  if (is.list(x)) {
    return(vapply(x, json_value, character(1), USE.NAMES = FALSE))
  }
  text <- if (is.character(x)) {
    json_string(x)
  } else if (is.logical(x)) {
    ifelse(x, "true", "false")
  } else if (is.integer(x)) {
    sprintf("%d", x)
  } else if (is.double(x)) {
    json_doubles(unclass(x), whole)
  } else {
    stop(sprintf("predictions of class %s cannot be written as JSON", toString(class(x))), call. = FALSE)
  }
  text[is.na(x)] <- "null"
  text
}

# Days and times in UTC, by ISO 8601.
json_times <- function(x) {
  if (inherits(x, "Date")) {
    return(format(x, "%Y-%m-%d"))
  }
  sub("[.]?0*Z$", "Z", format(x, "%Y-%m-%dT%H:%M:%OS6Z", tz = "UTC"))
}

# The shortest text that reads back as the same double.
json_doubles <- function(x, whole) {
  text <- rep("null", length(x))
  finite <- which(is.finite(x))
  if (length(finite) == 0) {
    return(text)
  }
  values <- as.double(x[finite])
  shortest <- sprintf("%.15g", values)
  for (digits in c("%.16g", "%.17g")) {
    inexact <- which(read_doubles(shortest) != values)
    if (length(inexact)) shortest[inexact] <- sprintf(digits, values[inexact])
  }
  if (!whole) {
    integral <- !grepl("[.e]", shortest)
    shortest[integral] <- paste0(shortest[integral], ".0")
  }
  text[finite] <- shortest
  text
}

# as.numeric() does not round correctly: it takes 0.3073098097420843 for the next double.
read_doubles <- function(texts) as.double(unlist(jsonlite::parse_json(json_array(texts))))

json_array <- function(texts) paste0("[", paste(texts, collapse = ","), "]")

#' Any value: a named list is an object, an unnamed one an array, a vector of length one a bare value unless `I()`.
json_value <- function(x) {
  if (is.null(x)) {
    return("null")
  }
  if (is.list(x)) {
    values <- json_items(x, json_values, json_value)
    if (is.null(names(x))) {
      return(json_array(values))
    }
    return(paste0("{", paste0(json_string(names(x)), ":", values, collapse = ",", recycle0 = TRUE), "}"))
  }
  values <- json_values(x)
  if (length(x) == 1L && !inherits(x, "AsIs")) values else json_array(values)
}

# Each element as JSON; numbers and texts all at once, since a row may have thousands. `nested` writes the others.
json_items <- function(x, doubles, nested, ...) {
  if (!is.list(x)) x <- as.list(x)
  one <- lengths(x) == 1L & !vapply(x, is.object, NA)
  is_double <- one & vapply(x, is.double, NA)
  is_text <- one & vapply(x, is.character, NA)
  items <- character(length(x))
  items[is_double] <- doubles(as.double(unlist(x[is_double], use.names = FALSE)))
  items[is_text] <- json_values(as.character(unlist(x[is_text], use.names = FALSE)))
  more <- !is_double & !is_text
  items[more] <- vapply(x[more], nested, "", ...)
  items
}
