# Ready means that it has predicted: what is tried at the start, and what is learned of the model there.

#' Predict, before anybody asks: all samples, or where there are none a row that the model takes.
#'
#' Stops the start where a sample comes out differently from what was published, or where no row can be predicted.
#'
#' @param warm Whether to predict a few times more, for speed.
#' @return The facts about the model: its `good` row, the parameters it `accepts`, its `classes` and `categories`.
rehearse <- function(service, config, warm = TRUE) {
  service$facts <- list(accepts = sort(unique(c(own_parameters(service$model), "probabilities", "classes"))),
                        categories = categories_of(service))
  samples <- service$manifest$samples
  service$facts$good <- if (length(samples)) first_of_samples(samples, service) else sought_row(service)
  service$facts$classes <- find_classes(service)
  if (is.null(service$facts$classes)) {
    service$facts$accepts <- setdiff(service$facts$accepts, setdiff(c("probabilities", "classes"),
                                                                    own_parameters(service$model)))
  }
  for (at in seq_along(samples)) check_sample(samples[[at]], at, service, config)
  check_several_rows(service)
  if (warm) warm_up(service, config)
  service$facts
}

#' Predict a few times: R compiles a function at its second call.
warm_up <- function(service, config, times = 3L) {
  samples <- service$manifest$samples
  if (length(samples) == 0L) {
    good <- service$facts$good
    for (i in seq_len(times)) predict_once(service, good$rows, good$parameters, 1L)
    return(invisible())
  }
  request <- samples[[1]]$request
  bodies <- list(predict = json_value(request), infer = as_tensors(request, service$manifest$signature$inputs))
  for (kind in names(Filter(Negate(is.null), bodies))) {
    for (i in seq_len(times)) answer_scoring(service, config, kind, charToRaw(bodies[[kind]]))
  }
}

# -- samples

first_of_samples <- function(samples, service) {
  tryCatch({
    read <- parse_body(charToRaw(json_value(samples[[1]]$request)))
    scoring <- read_instances(read, service$manifest$signature$inputs)
    list(rows = take_rows(scoring$rows, 1L), parameters = scoring$parameters)
  }, error = function(e) NULL)
}

# Another answer than the published one means another environment, and stops the start.
check_sample <- function(sample, at, service, config) {
  answer <- answer_scoring(service, config, "predict", charToRaw(json_value(sample$request)))
  if (!is.null(answer$problem)) {
    why <- if (is.null(answer$stack)) conditionMessage(answer$problem) else answer$stack
    stop_start(sprintf("the manifest's sample %d could not be scored: %s", at, why), "data")
  }
  got <- jsonlite::parse_json(answer$json)$predictions
  published <- sample$response$predictions
  tolerance <- if (is.null(sample$tolerance)) 1e-6 else sample$tolerance
  if (!is_close(got, published, tolerance)) {
    stop_start(sprintf(paste(
      "the manifest's sample %d came out differently from what was published (got %s, published %s):",
      "the packages here differ from those the model was made with, or it was published with another kind of prediction"
    ), at, substr(json_value(got), 1L, 80L), substr(json_value(published), 1L, 80L)), "data")
  }
}

# A sample as the other protocol has it, so that this way is warm too; NULL where its instances are not objects.
as_tensors <- function(request, inputs) {
  instances <- request$instances
  if (length(inputs) == 0 || length(instances) == 0 || !all(vapply(instances, is_object, NA))) {
    return(NULL)
  }
  json_value(list(inputs = lapply(inputs, function(input) {
    list(name = input$name, shape = list(length(instances)), datatype = input$datatype,
         data = lapply(instances, function(instance) instance[[input$name]]))
  })))
}

#' Whether two JSON values are the same, numbers within `tolerance` (absolute, and relative to the larger one).
is_close <- function(got, wanted, tolerance) {
  if (is.numeric(got) && is.numeric(wanted)) {
    return(abs(got - wanted) <= tolerance * max(1, abs(got), abs(wanted)))
  }
  if (is.list(got) && is.list(wanted)) {
    if (is_object(got) && is_object(wanted)) {
      if (!setequal(names(got), names(wanted))) {
        return(FALSE)
      }
      wanted <- wanted[names(got)]
    }
    return(is_object(got) == is_object(wanted) && length(got) == length(wanted) &&
             all(vapply(seq_along(got), function(at) is_close(got[[at]], wanted[[at]], tolerance), NA)))
  }
  identical(got, wanted)
}

# -- a row where there is no sample

#' The first row that the model can predict; stops the start where none is found.
sought_row <- function(service) {
  inputs <- service$manifest$signature$inputs
  if (length(inputs) == 0L) {
    stop_start(paste("the manifest has neither inputs nor samples, so nobody knows what to ask the model: publish it",
                     "with --signature and --samples"), "data")
  }
  why <- NULL
  for (row in candidate_rows(service)) {
    tried <- tryCatch(predict_once(service, row, list(), 1L), error = identity)
    if (!inherits(tried, "error") && !all(is_missing(unlist(tried)))) {
      return(list(rows = row, parameters = list()))
    }
    # as.numeric(day) of a text is NA, and the answer to each request would be null.
    why <- unique(c(why, if (inherits(tried, "error")) conditionMessage(tried) else "it predicts NA"))
  }
  stop_start(sprintf("no row was found that the model can predict (%s): publish it with --samples that it can",
                     substr(paste(why, collapse = "; "), 1L, 600L)), "data")
}

# Zeros and first levels, then ones, then what the model shows of its training.
candidate_rows <- function(service) {
  inputs <- service$manifest$signature$inputs
  sets <- tryCatch(known_levels(service$model), error = function(e) list())
  row_of <- function(number) {
    cells <- lapply(inputs, function(input) list(candidate_cell(input, number, sets)))
    as_frame(cells, 1L, inputs)
  }
  c(list(row_of(0), row_of(1)), training_row(service$model, inputs))
}

candidate_cell <- function(input, number, sets) {
  dimensions <- input$shape[-1]
  if (length(dimensions)) {
    size <- max(1, dimensions[[1]])
    inner <- list(name = input$name, datatype = input$datatype, shape = dimensions)
    return(rep(list(candidate_cell(inner, number, list())), size))
  }
  level <- c(input$categories, level_of_column(sets, input$name))
  if (length(level)) {
    value <- if (input$datatype == "BYTES") as.character(level[[1]]) else suppressWarnings(as.numeric(level[[1]]))
    if (!is.na(value)) {
      return(value)
    }
  }
  switch(input$datatype, BYTES = "", BOOL = number > 0, number)
}

# Of the column itself, or of a term like factor(cyl).
level_of_column <- function(sets, name) {
  if (!is.null(sets[[name]])) {
    return(sets[[name]]$levels)
  }
  for (term in names(sets)) {
    made <- tryCatch(all.vars(str2lang(term)), error = function(e) character())
    if (identical(made, name)) {
      return(sets[[term]]$levels)
    }
  }
}

training_row <- function(model, inputs) {
  names <- vapply(inputs, `[[`, "", "name")
  parts <- lapply(c("model", "trainingData", "data"), function(part) element(model, part))
  for (frame in Filter(is.data.frame, parts)) {
    complete <- if (all(names %in% names(frame))) which(stats::complete.cases(frame[names]))
    if (length(complete)) {
      row <- as.list(frame[complete[[1]], names, drop = FALSE])
      cells <- lapply(row, function(cell) list(if (is.factor(cell)) as.character(cell) else unname(cell)))
      return(list(as_frame(unname(cells), 1L, inputs)))
    }
  }
  list()
}

# -- what is learned

# The labels, where the model answers with probabilities.
find_classes <- function(service) {
  good <- service$facts$good
  if (is.null(good)) {
    return(NULL)
  }
  given <- tryCatch(predict_rows(service$model, good$rows, list(probabilities = TRUE)), error = function(e) NULL)
  right <- tryCatch({
    as_probabilities(given, 1L)
    TRUE
  }, error = function(e) FALSE)
  if (right && all(is.na(given) | (given >= 0 & given <= 1))) colnames(given)
}

#' The values of each input that has a closed set of them, by its name; from the model or the signature.
#'
#' Where both have them and they differ, the start is refused: the codes would differ too.
categories_of <- function(service) {
  sets <- tryCatch(known_levels(service$model), error = function(e) list())
  found <- list()
  for (input in service$manifest$signature$inputs) {
    own <- sets[[input$name]]$levels
    if (length(own) && length(input$categories) && !identical(own, as.character(input$categories))) {
      stop_start(sprintf("the signature's categories of %s are %s, but the model has %s: publish it with these",
                         input$name, toString(input$categories), toString(own)), "data")
    }
    found[[input$name]] <- if (length(input$categories)) input$categories else own
  }
  found
}

# -- the shape, and that no row depends on another

#' One row twice and three times in one call: as many predictions each time, and for a row the same in any company.
check_several_rows <- function(service) {
  good <- service$facts$good
  if (is.null(good)) {
    stop_start("the manifest's first sample holds no row to predict: publish it with --samples that do", "data")
  }
  ranks <- identical(service$manifest$rows, "together")
  alone <- predict_or_stop(service, good$rows, good$parameters, 1L)
  company <- company_of(service)
  others <- c(list(take_rows(good$rows, c(1L, 1L)), take_rows(good$rows, c(1L, 1L, 1L))), company)
  for (rows in others) {
    count <- if (is.data.frame(rows)) nrow(rows) else length(rows)
    together <- predict_or_stop(service, rows, good$parameters, count)
    if (!ranks && !is_same_row(alone, together) && !changes_by_itself(service, good, alone, rows, count)) {
      stop_start(paste("the prediction for a row depends on the rows next to it, as with x - mean(x) or cut(x, 3) in a",
                       "formula: have the training compute such numbers once; where a model ranks rows on purpose,",
                       "publish it with rows = \"together\""), "data")
    }
  }
}

# The good row before others that the model takes, one with larger numbers and one with smaller ones.
company_of <- function(service) {
  good <- service$facts$good
  if (!is.data.frame(good$rows)) {
    return(list())
  }
  triples <- lapply(c(1L, -1L), function(sign) shifted_rows(good$rows, sign))
  taken <- Filter(function(rows) predicts(service, take_rows(rows, 2L), good$parameters), triples)
  c(lapply(taken, take_rows, 1:2), taken)
}

# The row, and twice another one.
shifted_rows <- function(row, sign) {
  columns <- lapply(take_rows(row, c(1L, 1L, 1L)), function(column) {
    if (is.numeric(column)) column[2:3] <- methods::as(sign * (2 * column[2:3] + 1), class(column))
    column
  })
  structure(columns, row.names = .set_row_names(3L), class = "data.frame")
}

predict_or_stop <- function(service, rows, parameters, count) {
  tryCatch(predict_once(service, rows, parameters, count), error = function(e) {
    stop_start(sprintf("the model cannot be served as it is: %s", conditionMessage(e)), "data")
  })
}

is_same_row <- function(alone, together) {
  first <- lapply(together, function(part) if (is.matrix(part)) part[1L, , drop = FALSE] else part[1L])
  # glmnet gives a factor for one row and texts for two.
  plain <- function(part) if (is.factor(part)) as.character(part) else unclass(part)
  isTRUE(all.equal(lapply(alone, plain), lapply(first, plain), tolerance = 1e-6, check.attributes = FALSE))
}

# A model that draws lots, as a forest does between classes with equally many votes, meets its answer again.
changes_by_itself <- function(service, good, alone, rows, count, times = 10L) {
  for (i in seq_len(times)) {
    again <- predict_once(service, good$rows, good$parameters, 1L)
    if (!is_same_row(alone, again) || is_same_row(alone, predict_once(service, rows, good$parameters, count))) {
      return(TRUE)
    }
  }
  FALSE
}
