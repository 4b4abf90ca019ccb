# What a table of examples has: a name, a datatype and the categories of each column, and its values as JSON has them.

most_categories_shown <- 6L

#' The columns of `example`, each a list of `name`, `datatype`, `shape`, `categories` and `values`.
#'
#' There is a value for each row, NULL where one is missing. Stops where no datatype describes a column.
columns_of <- function(example) {
  if (length(names(example)) != ncol(example) || any(is.na(names(example)) | !nzchar(names(example)))) {
    stop_save("a column of the example has no name; name it")
  }
  if (nrow(example) == 0L || ncol(example) == 0L) {
    stop_save("the example has no rows or no columns; pass some rows of the training data, such as head(df, 50)")
  }
  Map(column_of, names(example), example)
}

column_of <- function(name, values) {
  if (all(is_missing(values))) {
    stop_save("every value of ", name, " is missing in the example; pass rows that have some")
  }
  if (anyNA(levels(values))) {
    stop_save(name, " has NA among its levels, which no text stands for; give that level a name before training")
  }
  texts <- c(name, if (is.factor(values)) levels(values) else if (is.character(values)) values)
  if (!all(Encoding(texts) == "latin1" | validUTF8(texts) | is.na(texts))) {
    stop_save(name, " holds a text that is not valid in its encoding: convert it with iconv() before training")
  }
  found <- if (is.list(values) || is.matrix(values)) {
    column_of_arrays(name, values)
  } else {
    list(datatype = datatype_of_column(name, values), shape = -1L, values = json_cells(values),
         categories = if (is.factor(values)) levels(values))
  }
  c(list(name = name), found)
}

datatype_of_column <- function(name, values) {
  kind <- if (is.object(values)) class(values)[[1]] else typeof(values)
  switch(kind,
    factor = , ordered = , Date = , POSIXct = , character = "BYTES", logical = "BOOL", integer = "INT32",
    double = "FP64", integer64 = "INT64",
    stop_save(name, " holds values of class ", kind, ", which no datatype describes; a column is numbers, texts, ",
              "booleans, factors, dates, times, or arrays of numbers")
  )
}

is_missing <- function(values) {
  if (is.list(values)) {
    return(vapply(values, is.null, NA))
  }
  missing <- is.na(values) | (is.double(values) & !is.object(values) & is.infinite(values))
  if (is.matrix(missing)) rowSums(missing) == ncol(missing) else missing
}

# One value a row: R's own, or text where JSON has no such type.
json_cells <- function(values) {
  missing <- is_missing(values)
  plain <- if (inherits(values, "integer64")) {
    numbers <- as.double(values)
    if (any(abs(numbers) >= 2^53, na.rm = TRUE)) {
      stop_save("integers from 2^53 on are not exact in R; pass them as texts")
    }
    lapply(numbers, whole_number)
  } else if (inherits(values, c("factor", "Date", "POSIXct"))) {
    as.list(if (is.factor(values)) as.character(values) else json_times(values))
  } else {
    as.list(unname(values))
  }
  plain[missing] <- list(NULL)
  plain
}

whole_number <- function(number) if (!is.na(number) && abs(number) < 2^31) as.integer(number) else number

column_of_arrays <- function(name, values) {
  rows <- if (is.matrix(values)) lapply(seq_len(nrow(values)), function(row) unname(values[row, ])) else unclass(values)
  sizes <- unique(lengths(Filter(Negate(is.null), rows)))
  if (!all(vapply(Filter(Negate(is.null), rows), function(row) is.numeric(row) && !is.object(row), NA))) {
    stop_save(name, " is a list of something else than numbers, which no datatype describes")
  }
  list(datatype = "FP64", shape = c(-1L, if (length(sizes) == 1L) sizes else -1L), categories = NULL,
       values = lapply(rows, function(row) if (!is.null(row)) json_cells(as.double(row))))
}

#' What the values of a column are, in a few words.
column_note <- function(column) {
  missing <- sum(vapply(column$values, is.null, NA))
  present <- unlist(column$values)
  more <- length(column$categories) - most_categories_shown
  paste(c(
    if (length(column$shape) > 1L) sprintf("arrays of %s", sub("-1", "any size", column$shape[[2]])),
    if (length(column$categories)) {
      paste0(sprintf("%d categories: %s", length(column$categories),
                     toString(utils::head(column$categories, most_categories_shown))),
             if (more > 0L) sprintf(" and %d more", more))
    } else if (is.numeric(present)) {
      sprintf("%.6g to %.6g", min(present), max(present))
    },
    if (missing > 0L) sprintf("%d of %d missing", missing, length(column$values)),
    column$remark
  ), collapse = "; ")
}

#' `count` rows that cover missing values, categories and booleans first, in their order.
covering_rows <- function(columns, count) {
  total <- length(columns[[1]]$values)
  # What a row shows of a column that another may not.
  facets <- lapply(columns, function(column) {
    missing <- vapply(column$values, is.null, NA)
    seen <- rep("", total)
    if (length(column$categories) || column$datatype == "BOOL") {
      seen[!missing] <- vapply(column$values[!missing], as.character, "")
    }
    match(ifelse(missing, "\u0001missing", seen), unique(c("", seen, "\u0001missing"))) - 1L
  })
  facets <- Filter(function(facet) any(facet > 0L), facets)
  chosen <- 1L
  known <- lapply(facets, `[`, 1L)
  for (row in seq_len(total)[-1]) {
    if (length(chosen) >= count) break
    fresh <- mapply(function(facet, known) facet[[row]] > 0L && !facet[[row]] %in% known, facets, known)
    if (any(as.logical(fresh))) {
      chosen <- c(chosen, row)
      known <- Map(function(facet, known) c(known, facet[[row]]), facets, known)
    }
  }
  more <- utils::head(setdiff(seq_len(total), chosen), max(0L, count - length(chosen)))
  sort(c(chosen, more))
}
