# baseline.json: what the training data looked like, column by column, in figures that can be merged. The Python backend
# writes the same: numbers in the bins of a DDSketch (https://arxiv.org/abs/1908.10693), texts by value.

baseline_gamma <- 1.01 / 0.99 # quantiles are off by 1 % of their value at most
least_count <- 10L # a value that fewer rows have may point to a person; it counts as "other"
most_values <- 50L
most_predicted <- 10000L # rows of the training data
smallest_number <- 2.2250738585072014e-308 * baseline_gamma # smaller ones count as zero

#' The statistics of `training`, and of the predictions for some of its rows, as baseline.json has them.
#'
#' @param training The training data, in the form of the example.
#' @param columns The example's columns, as columns_of() returns them.
#' @param outputs The signature's outputs.
#' @param takes_missing Whether the model predicts rows with a missing value; the others are left out where it does not.
#' @param ask A function of a table and row numbers that returns the model's answer for these rows, or an error.
training_baseline <- function(training, columns, outputs, takes_missing, ask) {
  training <- training_columns(training, columns)
  most_bins <- min(256, max(32, 200000 %/% length(columns)))
  inputs <- lapply(columns, function(column) {
    values <- training[[column$name]]
    by_value <- counts_by_value(column$datatype) || length(column$categories) > 0L
    check_training_column(column, values, by_value)
    statistics_of(values, column$datatype, by_value, most_bins)
  })
  rows <- seq_len(nrow(training))
  if (!takes_missing) rows <- rows[!Reduce(`|`, lapply(training, is_missing))]
  rows <- rows[seq(1L, length(rows), by = ceiling(length(rows) / most_predicted))]
  answer <- ask(as_served(training, columns), rows)
  if (inherits(answer, "error")) stop_save("the model does not predict rows of training: ", conditionMessage(answer))
  predicted <- lapply(outputs, function(output) {
    statistics_of(answer[[output$name]], output$datatype, counts_by_value(output$datatype), 256)
  })
  names(predicted) <- vapply(outputs, `[[`, "", "name")
  list(schema = 1L, rows = nrow(training), least_count = least_count, inputs = inputs, outputs = predicted)
}

counts_by_value <- function(datatype) datatype %in% c("BYTES", "BOOL")

training_columns <- function(training, columns) {
  training <- as_example(training)
  missing <- setdiff(names(columns), names(training))
  if (length(missing)) {
    stop_save("training has no column ", toString(missing), ": pass example = head(training, 50)")
  }
  if (nrow(training) == 0L) stop_save("training has no rows")
  training[names(columns)]
}

# As a backend gives them to the model: texts as factors where the categories are known.
as_served <- function(training, columns) {
  texts <- Filter(function(column) length(column$categories) && is.character(training[[column$name]]), columns)
  training[names(texts)] <- lapply(texts, function(column) factor(training[[column$name]], unlist(column$categories)))
  training
}

check_training_column <- function(column, values, by_value) {
  numbers <- is.list(values) || is.matrix(values) || is.numeric(values) && !is.factor(values)
  if (!all(is_missing(values)) && numbers == by_value) {
    stop_save(column$name, " is ", column$datatype, " in the example, and of class ", class(values)[[1L]],
              " in training: pass example = head(training, 50)")
  }
}

#' Of one column: how many values, how many missing, and how they are distributed. Of arrays each entry counts.
statistics_of <- function(values, datatype, by_value, most_bins) {
  missing <- is_missing(values)
  facts <- list(datatype = datatype, count = sum(!missing), missing = sum(missing))
  present <- if (is.matrix(values)) as.vector(values[!missing, ]) else values[!missing]
  if (is.list(present)) present <- unlist(present)
  c(facts, if (by_value) value_counts(value_texts(present)) else list(quantiles = sketch_of(present, most_bins)))
}

# As Python writes the same values.
value_texts <- function(values) {
  if (is.logical(values)) {
    tolower(as.character(values))
  } else if (inherits(values, c("Date", "POSIXct"))) {
    json_times(values)
  } else {
    enc2utf8(as.character(values))
  }
}

value_counts <- function(texts) {
  texts <- texts[!is.na(texts)]
  known <- unique(texts)
  counts <- tabulate(match(texts, known), length(known))
  named <- utils::head(order(-counts), most_values)
  named <- named[counts[named] >= least_count]
  list(frequent = stats::setNames(as.list(counts[named]), known[named]), other = length(texts) - sum(counts[named]))
}

#' A sketch of numbers as `quantiles` of a baseline.json: no more than `most_bins` bins, at least one for each sign.
sketch_of <- function(values, most_bins) {
  values <- as.double(values)
  values <- values[is.finite(values)]
  is_zero <- abs(values) <= smallest_number
  sizes <- list(negative = -values[values < 0 & !is_zero], positive = values[values > 0 & !is_zero])
  bins <- lapply(sizes, function(size) {
    keys <- ceiling(log(size) / log(baseline_gamma))
    known <- sort(unique(keys))
    list(keys = known, counts = tabulate(match(keys, known), length(known)))
  })
  gamma <- baseline_gamma
  while (length(bins$negative$keys) + length(bins$positive$keys) > max(most_bins, 2)) {
    bins <- lapply(bins, join_bins)
    gamma <- gamma^2
  }
  named <- lapply(bins, function(bins) stats::setNames(as.list(bins$counts), sprintf("%d", as.integer(bins$keys))))
  list(gamma = gamma, zero = sum(is_zero), negative = named$negative, positive = named$positive)
}

# Neighbours together, as if gamma had been its square from the start.
join_bins <- function(bins) {
  keys <- ceiling(bins$keys / 2)
  known <- unique(keys)
  list(keys = known, counts = as.integer(rowsum(bins$counts, match(keys, known))))
}
