# Which texts a model knows. The levels come from the model or the signature, never from the request: a factor that was
# made of the rows of one request has the codes of that request.

#' The factors that a model was trained with.
#'
#' @return A list by name: of a column, or of a term like `factor(cyl)`; each a list of `levels` and `ordered`.
known_levels <- function(model) UseMethod("known_levels")

#' @exportS3Method
known_levels.default <- function(model) {
  if (isS4(model)) {
    return(frame_levels(if ("frame" %in% methods::slotNames(model)) model@frame))
  }
  if (!is.list(model)) {
    return(list())
  }
  model <- as_plain(model)
  sets <- model[["xlevels"]]
  if (is.null(sets)) sets <- attr(model, "xlevels")
  ordered <- names(which(attr(model_terms(model), "dataClasses") == "ordered"))
  found <- level_sets(sets, names(sets) %in% ordered)
  for (part in c("model", "data", "trainingData", "ptype", "groups", "X")) {
    found <- add_levels(found, frame_levels(model[[part]]))
  }
  contrasts <- Filter(is.matrix, as.list(model[["contrasts"]]))
  add_levels(found, level_sets(lapply(contrasts, rownames), names(contrasts) %in% ordered))
}

#' @exportS3Method
known_levels.randomForest <- function(model) {
  sets <- Filter(is.character, model$forest$xlevels)
  # A forest has one category for what it takes as a number: ordered factors.
  level_sets(sets, model$forest$ncat[names(sets)] == 1)
}

#' @exportS3Method
known_levels.ranger <- function(model) level_sets(Filter(Negate(is.null), model$forest$covariate.levels))

#' @exportS3Method
known_levels.gam <- function(model) {
  add_levels(frame_levels(Filter(is.factor, model$var.summary)), NextMethod())
}

#' @exportS3Method
known_levels.naiveBayes <- function(model) {
  sets <- Filter(length, lapply(model$tables, colnames))
  level_sets(Filter(function(set) !all(set %in% c("FALSE", "TRUE")), sets))
}

#' @exportS3Method
known_levels.gbm <- function(model) {
  sets <- stats::setNames(model$var.levels, model$var.names)
  factors <- vapply(sets, is.character, NA)
  level_sets(sets[factors], model$var.type[factors] == 0)
}

#' @exportS3Method
known_levels.train <- function(model) {
  original <- Filter(function(set) is.character(set$values), model$recipe$orig_lvls)
  recipe <- lapply(original, function(set) list(levels = set$values, ordered = isTRUE(set$ordered)))
  add_levels(recipe, NextMethod())
}

#' @exportS3Method
known_levels.hardhat_model <- function(model) frame_levels(model$blueprint$ptypes$predictors)

level_sets <- function(sets, ordered = FALSE) {
  sets <- Filter(is.character, as.list(sets))
  if (length(sets) == 0) {
    return(list())
  }
  Map(function(levels, ordered) list(levels = levels, ordered = ordered), sets, rep_len(ordered, length(sets)))
}

frame_levels <- function(frame) {
  factors <- if (is.list(frame)) Filter(is.factor, frame)
  level_sets(lapply(factors, levels), vapply(factors, is.ordered, NA))
}

add_levels <- function(sets, others) c(sets, others[setdiff(names(others), names(sets))])

#' The rows as the model takes them: texts as factors with the model's levels.
#'
#' A text that the model does not know is answered with 422. A model that does not say which texts it knows is an error:
#' R would give each text the code that it has among the texts of this request.
with_levels <- function(rows, model) {
  if (!is.data.frame(rows)) {
    return(rows)
  }
  sets <- remember(model, "levels", known_levels)
  for (name in names(sets)) {
    set <- sets[[name]]
    rows <- if (name %in% names(rows)) as_levels(rows, name, set$levels, set$ordered) else
      check_term(rows, name, set$levels, model)
  }
  times <- remember(model, "times", known_times)
  for (name in intersect(names(times), names(Filter(is.character, rows)))) {
    rows <- if (times[[name]] == "day") as_day(rows, name) else as_time(rows, name)
  }
  as_known_factors(rows, model)
}

#' The columns that were dates or times in training, where the model keeps its data: "day" or "time" by name.
known_times <- function(model) {
  parts <- lapply(c("model", "data", "trainingData", "ptype"), function(part) element(model, part))
  columns <- do.call(c, lapply(Filter(is.data.frame, parts), as.list))
  columns <- columns[!duplicated(names(columns))]
  found <- vapply(columns, function(values) {
    if (inherits(values, "Date")) "day" else if (inherits(values, "POSIXct")) "time" else ""
  }, "")
  found[nzchar(found)]
}

# factor(cyl) and its like stand in the formula, so predict() makes them itself, and fails at a level that is new.
check_term <- function(rows, name, levels, model) {
  term <- tryCatch(str2lang(name), error = function(e) NULL)
  columns <- intersect(all.vars(term), names(rows))
  if (!is.call(term) || length(columns) != 1L) {
    return(rows)
  }
  made <- tryCatch(as.character(eval(term, rows, model_environment(model))), error = function(e) NULL)
  if (length(made) == nrow(rows)) {
    stop_unknown(rows, columns, rows[[columns]], !is.na(made) & !made %in% levels, one_of(levels))
  }
  rows
}

# What is left as a text: with the signature's categories it is a factor already.
as_known_factors <- function(rows, model) {
  if (!any(vapply(rows, function(column) is.factor(column) || is.character(column), NA))) {
    return(rows)
  }
  terms <- model_terms(model)
  ordered <- names(which(attr(terms, "dataClasses") == "ordered"))
  for (name in intersect(ordered, names(Filter(is.factor, rows)))) {
    rows[[name]] <- factor(rows[[name]], levels(rows[[name]]), ordered = TRUE)
  }
  texts <- names(Filter(is.character, rows))
  if (length(texts) && !is.null(terms)) {
    # In as.Date(day) or nchar(name) a text is a text.
    plain <- Filter(is.name, as.list(attr(stats::delete.response(terms), "variables")))
    texts <- intersect(texts, c(vapply(plain, as.character, ""), attr(terms, "term.labels")))
  }
  if (length(texts)) {
    stop(sprintf(paste("the model does not say which texts %s can be, and must not learn it from a request: publish it",
                       "with \"categories\" in the signature, all its levels in the order they had in training"),
                 toString(texts)), call. = FALSE)
  }
  rows
}
