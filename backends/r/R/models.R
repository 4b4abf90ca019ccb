# What predict() is called with for each class of model, by dispatch, and what of its answer is the prediction. A class
# that is not here is asked as any other: predict(model, rows).

#' The predictions for `rows`: the class where the model can name one, otherwise the value on the response's scale.
#'
#' @param type One of [types_of()], or NULL for the model's own.
model_answer <- function(model, rows, type = NULL) UseMethod("model_answer")

#' The probability of each class: a matrix with the labels as column names, or NULL where the model has none.
class_probabilities <- function(model, rows) UseMethod("class_probabilities")

#' What `type` can be: the choices that the class's own predict() method lists.
types_of <- function(model) {
  # Their methods list the default alone.
  choices <- if (inherits(model, c("gam", "gbm"))) c("response", "link") else
    setdiff(method_choices(model), c("coefficients", "nonzero"))
  if (length(choices) > 1L) choices else character()
}

method_choices <- function(model) {
  for (class in classes_of(model)) {
    method <- predict_method(class)
    if (!is.null(method)) {
      return(tryCatch(as.character(eval(formals(method)$type, baseenv())), error = function(e) character()))
    }
  }
  character()
}

classes_of <- function(model) if (isS4(model)) methods::is(model) else class(model)

# By the search path and not stats::predict(): packages with S4 classes have a generic of their own there.
ask_model <- function(model, ...) get("predict", globalenv(), mode = "function")(model, ...)

#' @exportS3Method
model_answer.default <- function(model, rows, type = NULL) {
  if (is.null(type)) type <- remember(model, "type", usual_type)
  if (is.null(type)) predict_by_dispatch(model, rows) else predict_by_dispatch(model, rows, type = type)
}

# predict() says nothing of which package would help.
predict_by_dispatch <- function(model, rows, ...) {
  if (!remember(model, "has_predict", has_predict)) {
    stop(sprintf(paste("there is no predict() method for the class %s: install its package, name it with --runtime",
                       "when you publish, or say in predict.R how to predict"), toString(class(model))), call. = FALSE)
  }
  ask_model(model, rows, ...)
}

has_predict <- function(model) !all(vapply(classes_of(model), function(class) is.null(predict_method(class)), NA))

# What was found out about the model that is served; it does not change.
memory <- new.env(parent = emptyenv())

remember <- function(model, what, find_out) {
  # The same object is told by its address; another is compared, which takes longer, and is forgotten soon.
  if (!identical(memory$model, model)) {
    rm(list = ls(memory, all.names = TRUE), envir = memory)
    memory$model <- model
  }
  if (!exists(what, memory, inherits = FALSE)) assign(what, find_out(model), memory)
  memory[[what]]
}

# The class, where predict() would give scores, as for rpart; the response, where it would give the linear predictor.
usual_type <- function(model) {
  types <- method_choices(model)
  if ("class" %in% types && names_classes(model)) "class" else if ("response" %in% types) "response"
}

names_classes <- function(model) {
  if (inherits(model, "rpart")) {
    return(model$method == "class")
  }
  if (inherits(model, c("elnet", "fishnet", "coxnet", "mrelnet"))) {
    return(FALSE)
  }
  !inherits(model, c("nnet", "earth")) || inherits(model, "multinom") || !is.null(element(model, "lev")) ||
    !is.null(element(model, "levels"))
}

#' @exportS3Method
model_answer.gam <- function(model, rows, type = NULL) {
  ask_model(model, rows, type = if (is.null(type)) "response" else type)
}

#' @exportS3Method
model_answer.gbm <- function(model, rows, type = NULL) {
  type <- if (is.null(type)) "response" else type
  if (type == "response" && model$distribution$name == "multinomial") {
    return(most_likely(class_probabilities(model, rows)))
  }
  ask_model(model, rows, n.trees = model$n.trees, type = type)
}

#' @exportS3Method
model_answer.lda <- function(model, rows, type = NULL) ask_model(model, as_fitted(model, rows))$class

#' @exportS3Method
model_answer.qda <- model_answer.lda

#' @exportS3Method
model_answer.Mclust <- function(model, rows, type = NULL) ask_model(model, rows)$classification

# One thread: the backend runs as many predictions at once as it has processors.
#' @exportS3Method
model_answer.ranger <- function(model, rows, type = NULL) {
  ask_model(model, data = rows, num.threads = 1L)$predictions
}

#' @exportS3Method
model_answer.glmnet <- function(model, rows, type = NULL) {
  ask_model(model, as_numbers(rows, model), type = if (is.null(type)) usual_type(model) else type)
}

# Where a probability is not a number, glmnet names the class of another row.
#' @exportS3Method
model_answer.multnet <- function(model, rows, type = NULL) {
  probabilities <- if (is.null(type)) class_probabilities(model, rows)
  if (is.null(probabilities)) NextMethod() else most_likely(probabilities)
}

#' @exportS3Method
model_answer.cv.glmnet <- function(model, rows, type = NULL) {
  inner <- model$glmnet.fit
  if (is.null(type) && inherits(inner, "multnet")) {
    return(most_likely(class_probabilities(model, rows)))
  }
  ask_model(model, as_numbers(rows, inner), type = if (is.null(type)) usual_type(inner) else type)
}

# -- time series: the one input is the number of steps ahead

longest_forecast <- 100000

#' The forecast for each row's step: `values` makes as many as it is asked for, from the first step on.
forecast_steps <- function(rows, values) {
  if (!is.data.frame(rows) || ncol(rows) != 1L || !is.numeric(rows[[1]])) {
    stop("a time series has one input, the number of steps ahead: give the signature one input, of datatype INT32",
         call. = FALSE)
  }
  steps <- rows[[1]]
  wrong <- !is.na(steps) & !(steps >= 1 & steps <= longest_forecast & steps == trunc(steps))
  stop_unknown(rows, names(rows), steps, wrong, sprintf("a number of steps from 1 to %d", longest_forecast))
  as.numeric(values(max(1, steps, na.rm = TRUE)))[steps]
}

#' @exportS3Method
model_answer.Arima <- function(model, rows, type = NULL) {
  forecast_steps(rows, function(steps) ask_model(model, n.ahead = steps, se.fit = FALSE))
}

#' @exportS3Method
model_answer.ar <- model_answer.Arima

#' @exportS3Method
model_answer.StructTS <- model_answer.Arima

#' @exportS3Method
model_answer.HoltWinters <- function(model, rows, type = NULL) {
  forecast_steps(rows, function(steps) ask_model(model, n.ahead = steps)[, "fit"])
}

#' @exportS3Method
model_answer.forecast_ARIMA <- function(model, rows, type = NULL) {
  forecast_steps(rows, function(steps) forecast::forecast(model, h = steps)$mean)
}

#' @exportS3Method
model_answer.ets <- model_answer.forecast_ARIMA

#' @exportS3Method
model_answer.bats <- model_answer.forecast_ARIMA

#' @exportS3Method
model_answer.tbats <- model_answer.forecast_ARIMA

# -- models of a matrix

# The names that the columns had in training; as they come where they had none.
as_numbers <- function(rows, model) {
  names <- rownames(if (is.list(model$beta)) model$beta[[1]] else model$beta)
  as_matrix_of(rows, if (!all(grepl("^V[0-9]+$", names))) names)
}

as_matrix_of <- function(rows, names) {
  if (length(names)) {
    missing <- setdiff(names, names(rows))
    if (length(missing)) {
      stop(sprintf("the model was trained with columns that the signature lacks: %s", toString(missing)), call. = FALSE)
    }
    rows <- rows[names]
  }
  as.matrix(rows)
}

# A discriminant analysis of a matrix takes columns by their place.
as_fitted <- function(model, rows) {
  if (is.null(model_terms(model)) && all(colnames(model$means) %in% names(rows))) rows[colnames(model$means)] else rows
}

# -- probabilities

#' @exportS3Method
class_probabilities.default <- function(model, rows) {
  types <- method_choices(model)
  type <- intersect(c("prob", "probs", if (inherits(model, c("naiveBayes", "nnet"))) "raw"), types)
  # Without "class" among them, "prob" means something else: of zeroinfl, how likely each count is.
  if (length(type) && "class" %in% types && names_classes(model)) {
    both_classes(ask_model(model, rows, type = type[[1]]), element(model, "lev"))
  }
}

#' @exportS3Method
class_probabilities.glm <- function(model, rows) {
  response <- if (is.data.frame(model$model)) model$model[[1]]
  if (identical(model$family$family, "binomial") && is.null(dim(response)) && !is.null(response)) {
    # Of shares of successes, two values that happen to be all there are are no labels.
    labels <- if (is.factor(response)) levels(response) else sort(unique(response))
    shares <- is.numeric(labels) && any(!labels %in% 0:1)
    if (length(labels) == 2L && !shares) both_classes(model_answer(model, rows, "response"), labels)
  }
}

#' @exportS3Method
class_probabilities.lda <- function(model, rows) ask_model(model, as_fitted(model, rows))$posterior

#' @exportS3Method
class_probabilities.qda <- class_probabilities.lda

#' @exportS3Method
class_probabilities.Mclust <- function(model, rows) NULL

#' @exportS3Method
class_probabilities.randomForest <- function(model, rows) {
  if (model$type == "classification") ask_model(model, rows, type = "prob")
}

#' @exportS3Method
class_probabilities.ranger <- function(model, rows) {
  if (model$forest$treetype == "Probability estimation") model_answer(model, rows)
}

#' @exportS3Method
class_probabilities.svm <- function(model, rows) {
  if (model$compprob) attr(ask_model(model, rows, probability = TRUE), "probabilities")
}

#' @exportS3Method
class_probabilities.train <- function(model, rows) {
  if (model$modelType == "Classification" && !is.null(model$modelInfo$prob) && model$control$classProbs) {
    as.matrix(ask_model(model, rows, type = "prob"))
  }
}

#' @exportS3Method
class_probabilities.glmnet <- function(model, rows) NULL

#' @exportS3Method
class_probabilities.cv.glmnet <- function(model, rows) {
  if (inherits(model$glmnet.fit, c("lognet", "multnet"))) {
    both_classes(rows_by_classes(model_answer(model, rows, "response")), model$glmnet.fit$classnames)
  }
}

#' @exportS3Method
class_probabilities.lognet <- function(model, rows) {
  if (length(model$lambda) == 1L) both_classes(rows_by_classes(model_answer(model, rows, "response")), model$classnames)
}

#' @exportS3Method
class_probabilities.multnet <- class_probabilities.lognet

#' @exportS3Method
class_probabilities.earth <- function(model, rows) {
  if (!is.null(model$levels)) both_classes(ask_model(model, rows, type = "response"), model$levels)
}

#' @exportS3Method
class_probabilities.gbm <- function(model, rows) {
  kind <- model$distribution$name
  if (kind %in% c("bernoulli", "multinomial")) {
    given <- ask_model(model, rows, n.trees = model$n.trees, type = "response")
    both_classes(rows_by_classes(given), if (kind == "bernoulli") c("0", "1"))
  }
}

#' @exportS3Method
class_probabilities.ksvm <- function(model, rows) {
  if (length(model@prob.model)) ask_model(model, rows, type = "probabilities")
}

#' @exportS3Method
class_probabilities.party <- function(model, rows) {
  answer <- ask_model(model, rows, type = "prob")
  if (is.matrix(answer)) answer
}

# [rows, classes, 1] without its last dimension.
rows_by_classes <- function(given) {
  if (length(dim(given)) == 3L) array(given, dim(given)[1:2], dimnames(given)[1:2]) else given
}

# Many methods give one number where there are two classes: the probability of the second. Some give a vector of all
# classes for one row: a matrix on its side.
both_classes <- function(given, labels = NULL) {
  if (is.null(dim(given)) && length(labels) > 2L && identical(names(given), as.character(labels))) given <- t(given)
  given <- as.matrix(given)
  if (ncol(given) == 1L && length(labels) == 2L) given <- cbind(1 - given[, 1L], given[, 1L])
  if (length(labels) == ncol(given)) colnames(given) <- as.character(labels)
  given
}

most_likely <- function(probabilities) {
  labels <- colnames(probabilities)
  factor(labels[max.col(probabilities, ties.method = "first")], labels)
}
