# The packages that a model needs: those that have the predict() methods of its classes, and those whose functions its
# formulas call. An RDS file names neither, so the installed packages are asked for what they export and register.

#' Attach what `model` needs, so that it predicts as in the session that trained it.
#'
#' @param named Packages that the manifest's `runtime` names; they are attached first, and decide where several packages
#'   have what is sought.
attach_packages <- function(model, named = character()) {
  named <- setdiff(named, "R")
  for (package in named[vapply(named, is_installed, NA)]) attach_package(package)
  for (package in needed_packages(model, named)) attach_package(package)
}

always_attached <- c("base", "methods", "datasets", "utils", "grDevices", "graphics", "stats")

#' The packages that a model needs beyond those that every R attaches.
needed_packages <- function(model, named = character()) {
  index <- NULL
  lookup <- function(what, name, among = NULL) {
    if (is.null(index)) index <<- package_index()
    found <- index[[what]][[name]]
    choose_package(if (is.null(among)) found else intersect(found, among), named, model, name, what)
  }
  # An object with slots says itself where its class is from.
  own <- if (isS4(model)) attr(class(model), "package")
  methods <- lapply(model_classes(model), function(class) {
    method <- predict_method(class)
    if (is.null(method)) lookup("methods", class) else package_of(method)
  })
  methods <- unlist(methods)
  functions <- lapply(formula_functions(model), function(name) {
    found <- get0(name, model_environment(model), mode = "function")
    # Another package than the model's own may have another function of that name.
    if (is.null(found)) lookup("exports", name, c(named, methods, "splines")) else package_of(found)
  })
  found <- setdiff(unique(c(own, methods, unlist(functions))), always_attached)
  found[vapply(found, is_installed, NA)]
}

# "" for a function of nobody's package.
package_of <- function(method) {
  home <- topenv(if (is.null(environment(method))) baseenv() else environment(method))
  if (isNamespace(home)) getNamespaceName(home)[[1]] else if (identical(home, baseenv())) "base" else ""
}

is_installed <- function(package) nzchar(package) && nzchar(system.file(package = package))

attach_package <- function(package) {
  suppressPackageStartupMessages(library(package, character.only = TRUE, warn.conflicts = FALSE))
}

#' Which installed packages register a predict() method for a class, and which export a name.
#'
#' @return A list of `methods` and `exports`; each a list of package names by class or function.
package_index <- function(libraries = .libPaths()) {
  files <- Sys.glob(file.path(libraries, "*", "Meta", "nsInfo.rds"))
  packages <- basename(dirname(dirname(files)))
  files <- files[!duplicated(packages)]
  packages <- unique(packages)
  namespaces <- lapply(files, function(file) tryCatch(readRDS(file), error = function(e) NULL))
  methods <- lapply(namespaces, function(namespace) {
    registered <- namespace$S3methods
    if (length(registered)) unique(registered[registered[, 1L] == "predict", 2L])
  })
  exports <- lapply(namespaces, `[[`, "exports")
  by_name <- function(names) split(rep(packages, lengths(names)), as.character(unlist(names)))
  list(methods = by_name(methods), exports = by_name(exports))
}

# None, where the class has no method (many have none: numeric) or where the call will say what is missing.
choose_package <- function(found, named, model, name, what) {
  if (length(found) > 1L && length(preferred <- intersect(found, c(named, calling_package(model))))) found <- preferred
  if (length(found) > 1L) {
    kind <- if (what == "methods") "predict() for the class" else "the function"
    stop(sprintf("%s %s is in the packages %s: name the right one when you publish, with --runtime PACKAGE=VERSION",
                 kind, name, toString(found)), call. = FALSE)
  }
  found
}

# Of a call like mgcv::gam(...), which most models keep.
calling_package <- function(model) {
  call <- element(model, "call")
  if (is.call(call) && is.call(call[[1]])) as.character(call[[1]][[2]])
}

#' The predict() method that a class has now, or NULL.
predict_method <- function(class) {
  method <- utils::getS3method("predict", class, optional = TRUE)
  generic <- if (is.null(method)) get("predict", globalenv(), mode = "function")
  if (methods::is(generic, "standardGeneric")) {
    method <- methods::selectMethod("predict", class, optional = TRUE, fdef = generic)
  }
  method
}

#' The classes of a model and of the models inside it (caret's, a pipeline's).
model_classes <- function(model, depth = 3L) {
  if (isS4(model)) {
    return(character())
  }
  inner <- if (is.list(model) && !is.data.frame(model) && depth > 0L && length(model) <= 200L) {
    unlist(lapply(as_plain(model), model_classes, depth - 1L), use.names = FALSE)
  }
  own <- if (is.object(model)) class(model)
  setdiff(unique(c(own, inner)), c("formula", "terms", "data.frame", "factor", "call", "matrix"))
}

# A list as it is: some classes have elements of another kind, like the nodes of a tree.
as_plain <- function(model) {
  attributes(model) <- attributes(model)[setdiff(names(attributes(model)), "class")]
  model
}

#' An element of a model, or NULL.
element <- function(model, name) if (is.list(model)) as_plain(model)[[name]]

#' The names of the functions that the model's formulas call.
formula_functions <- function(model) {
  terms <- model_terms(model)
  if (is.null(terms)) {
    return(character())
  }
  predictors <- attr(stats::delete.response(terms), "variables")
  calls <- c(as.list(predictors)[-1], as.list(attr(terms, "predvars"))[-1])
  called <- unlist(lapply(calls, function(call) setdiff(all.names(call), all.vars(call))))

  unique(as.character(called))
}

#' The terms of a model that was made by a formula, or NULL.
model_terms <- function(model) {
  terms <- if (isS4(model)) {
    if ("terms" %in% methods::slotNames(model)) model@terms
  } else {
    element(model, "terms")
  }
  if (inherits(terms, "terms")) terms
}

model_environment <- function(model) {
  found <- environment(model_terms(model))
  if (is.null(found)) globalenv() else found
}
