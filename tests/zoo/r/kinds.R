# Long: one table of models.
# The kinds of model that people make in R, and what R itself predicts with each: nothing here knows of CHIPS.
#
# A kind is a list:
#   model          the fitted model
#   rows           seven rows as a data frame, with the types that the training data had
#   answer         function of rows: what predict() gives in this session, cut to the prediction itself
#   probabilities  function of rows: a matrix with the labels as column names; absent where there are none
#   outputs        names of the outputs, where there are several
#   width          values of each row, where they are several
#   categories     inputs whose levels the model does not hold, so that they are published with the signature
#   draws_lots     a question to which R's own answer is another one each time
#   runtime        packages to name at publishing
#   refused        a part of what the start says, for a model that is not taken as it is

kinds <- list()
kind <- function(family, name, make, needs = character()) {
  kinds[[length(kinds) + 1L]] <<- list(family = family, kind = name, make = make, needs = needs)
}
plain <- function(model) function(rows) predict(model, rows)
seven <- function(data, columns) data[round(seq(2, nrow(data), length.out = 7)), columns, drop = FALSE]

cars <- transform(mtcars, gears = factor(gear), shift = ifelse(am == 1, "manual", "automatic"),
                  size = factor(ifelse(wt < 2.8, "small", ifelse(wt < 3.5, "middle", "large")),
                                c("small", "middle", "large"), ordered = TRUE),
                  straight = vs == 1)
flowers <- transform(iris, big = factor(ifelse(Petal.Length > 4.5, "big", "small")))
breaks <- transform(warpbreaks, wool = as.character(wool))

linear <- "Linear models"
kind(linear, "lm", function() {
  model <- lm(mpg ~ wt + hp, cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = plain(model))
})
kind(linear, "lm with a factor", function() {
  model <- lm(mpg ~ wt + gears, cars)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model))
})
kind(linear, "lm with a text column", function() {
  model <- lm(mpg ~ wt * shift, cars)
  list(model = model, rows = seven(cars, c("wt", "shift")), answer = plain(model))
})
kind(linear, "lm with factor(cyl) in the formula", function() {
  model <- lm(mpg ~ factor(cyl) + wt, cars)
  list(model = model, rows = seven(cars, c("cyl", "wt")), answer = plain(model), unseen = list(cyl = 5))
})
kind(linear, "lm with as.factor(text) in the formula", function() {
  model <- lm(breaks ~ as.factor(wool) + tension, breaks)
  list(model = model, rows = seven(breaks, c("wool", "tension")), answer = plain(model))
})
kind(linear, "lm with an interaction of factor(cyl) and factor(gear)", function() {
  model <- lm(mpg ~ factor(vs):factor(am) + wt, cars)
  list(model = model, rows = seven(cars, c("vs", "am", "wt")), answer = plain(model), unseen = list(vs = 2, am = 3))
})
kind(linear, "lm with an ordered factor", function() {
  model <- lm(mpg ~ size + hp, cars)
  list(model = model, rows = seven(cars, c("size", "hp")), answer = plain(model))
})
kind(linear, "lm with sum contrasts", function() {
  model <- lm(mpg ~ gears + wt, cars, contrasts = list(gears = "contr.sum"))
  list(model = model, rows = seven(cars, c("gears", "wt")), answer = plain(model))
})
kind(linear, "lm with a logical column", function() {
  model <- lm(mpg ~ straight + wt, cars)
  list(model = model, rows = seven(cars, c("straight", "wt")), answer = plain(model))
})
kind(linear, "lm with poly()", function() {
  model <- lm(mpg ~ poly(wt, 3) + hp, cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = plain(model))
})
kind(linear, "lm with scale()", function() {
  model <- lm(mpg ~ scale(wt) + hp, cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = plain(model))
})
kind(linear, "lm with natural splines", function() {
  library(splines)
  model <- lm(mpg ~ ns(wt, 3) + bs(hp, 4), cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = plain(model))
})
kind(linear, "lm with cut() at fixed breaks", function() {
  model <- lm(mpg ~ cut(hp, c(0, 100, 150, 400)) + log(wt) + I(qsec^2), cars)
  list(model = model, rows = seven(cars, c("hp", "wt", "qsec")), answer = plain(model))
})
kind(linear, "lm with cut() into a number of intervals", function() {
  model <- lm(mpg ~ cut(hp, 3) + wt, cars)
  list(model = model, rows = seven(cars, c("hp", "wt")), answer = plain(model), refused = "publish it with --samples",
       note = "cut(x, 3) takes its breaks from the rows of the request: give the breaks")
})
kind(linear, "lm with x - mean(x) in the formula", function() {
  model <- lm(mpg ~ I(hp - mean(hp)) + wt, cars)
  list(model = model, rows = seven(cars, c("hp", "wt")), answer = plain(model), refused = "depends on the rows next to it",
       note = "mean(x) is that of the rows of the request: compute it once in training, or use scale(x)")
})
kind(linear, "lm with an offset and weights", function() {
  model <- lm(mpg ~ wt + offset(qsec / 10), cars, weights = hp)
  list(model = model, rows = seven(cars, c("wt", "qsec")), answer = plain(model))
})
kind(linear, "lm with an offset argument", function() {
  model <- lm(mpg ~ wt, cars, offset = qsec / 10)
  list(model = model, rows = seven(cars, c("wt", "qsec")), answer = plain(model))
})
kind(linear, "lm with column names with blanks", function() {
  odd <- data.frame(y = cars$mpg, `weight (lbs)` = cars$wt, `gear box` = cars$shift, check.names = FALSE)
  model <- lm(y ~ ., odd)
  list(model = model, rows = seven(odd, c("weight (lbs)", "gear box")), answer = plain(model))
})
kind(linear, "lm of dates in texts, as.Date() in the formula", function() {
  air <- transform(airquality[1:60, ], day = sprintf("2026-%02d-%02d", Month, Day))
  model <- lm(Temp ~ as.numeric(as.Date(day)) + Wind, air)
  list(model = model, rows = seven(air, c("day", "Wind")), answer = plain(model), unseen = list(day = "soon"))
})
kind(linear, "lm with two responses (mlm)", function() {
  model <- lm(cbind(mpg, qsec) ~ wt + hp, cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = plain(model), outputs = c("mpg", "qsec"))
})
kind(linear, "mlm as one output of two values", function() {
  model <- lm(cbind(mpg, qsec) ~ wt + gears, cars)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model), width = 2)
})
kind(linear, "aov", function() {
  model <- aov(breaks ~ wool * tension, warpbreaks)
  list(model = model, rows = seven(warpbreaks, c("wool", "tension")), answer = plain(model))
})
kind(linear, "MASS::rlm", function() {
  model <- MASS::rlm(stack.loss ~ ., stackloss)
  list(model = model, rows = seven(stackloss, names(stackloss)[1:3]), answer = plain(model))
}, "MASS")
kind(linear, "quantreg::rq", function() {
  model <- quantreg::rq(mpg ~ wt + gears, data = cars)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model))
}, "quantreg")
kind(linear, "robustbase::lmrob", function() {
  model <- robustbase::lmrob(mpg ~ wt + shift, cars)
  list(model = model, rows = seven(cars, c("wt", "shift")), answer = plain(model))
}, "robustbase")
kind(linear, "pls::plsr", function() {
  model <- pls::plsr(mpg ~ wt + hp + qsec, ncomp = 2, data = cars)
  list(model = model, rows = seven(cars, c("wt", "hp", "qsec")), answer = function(rows) matrix(predict(model, rows), nrow(rows)),
       width = 2)
}, "pls")

general <- "Generalized and additive models"
response <- function(model) function(rows) predict(model, rows, type = "response")
kind(general, "glm, binomial", function() {
  model <- glm(big ~ Sepal.Length + Sepal.Width, binomial, flowers)
  list(model = model, rows = seven(flowers, c("Sepal.Length", "Sepal.Width")), answer = response(model),
       probabilities = function(rows) {
         p <- predict(model, rows, type = "response")
         cbind(big = 1 - p, small = p)
       })
})
kind(general, "glm, Poisson, with an offset", function() {
  model <- glm(breaks ~ wool + tension + offset(log(w)), poisson, transform(breaks, w = seq_len(54)))
  list(model = model, rows = seven(transform(breaks, w = seq_len(54)), c("wool", "tension", "w")),
       answer = response(model))
})
kind(general, "glm, Gamma", function() {
  model <- glm(uptake ~ Type * log(conc), Gamma("log"), CO2)
  list(model = model, rows = seven(CO2, c("Type", "conc")), answer = response(model))
})
kind(general, "MASS::glm.nb", function() {
  model <- MASS::glm.nb(Days ~ Sex + Age, MASS::quine)
  list(model = model, rows = seven(MASS::quine, c("Sex", "Age")), answer = response(model))
}, "MASS")
kind(general, "pscl::zeroinfl", function() {
  data(bioChemists, package = "pscl", envir = environment())
  model <- pscl::zeroinfl(art ~ fem + ment | ment, bioChemists)
  list(model = model, rows = seven(bioChemists, c("fem", "ment")), answer = response(model))
}, "pscl")
kind(general, "mgcv::gam", function() {
  model <- mgcv::gam(mpg ~ s(wt, k = 4) + gears, data = cars)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = response(model))
}, "mgcv")
kind(general, "mgcv::gam with smooths by a factor and a random effect", function() {
  library(mgcv)
  model <- gam(uptake ~ s(conc, by = Type, k = 4) + s(Plant, bs = "re"), data = transform(CO2, Plant = factor(
    as.character(Plant))), family = Gamma("log"))
  list(model = model, rows = seven(transform(CO2, Plant = factor(as.character(Plant))), c("conc", "Type", "Plant")),
       answer = response(model))
}, "mgcv")
kind(general, "mgcv::gam, binomial", function() {
  model <- mgcv::gam(big ~ s(Sepal.Length, k = 4), binomial, flowers)
  list(model = model, rows = seven(flowers, "Sepal.Length"), answer = response(model), probabilities = function(rows) {
    p <- as.vector(predict(model, rows, type = "response"))
    cbind(big = 1 - p, small = p)
  })
}, "mgcv")
kind(general, "earth", function() {
  model <- earth::earth(mpg ~ wt + hp + gears, cars)
  list(model = model, rows = seven(cars, c("wt", "hp", "gears")), answer = function(rows) predict(model, rows)[, 1])
}, "earth")
kind(general, "cv.glmnet", function() {
  set.seed(1)
  x <- as.matrix(cars[c("wt", "hp", "qsec")])
  model <- glmnet::cv.glmnet(x, cars$mpg, nfolds = 4)
  list(model = model, rows = seven(cars, c("hp", "qsec", "wt")),
       answer = function(rows) predict(model, as.matrix(rows[c("wt", "hp", "qsec")]))[, 1])
}, "glmnet")
kind(general, "cv.glmnet, multinomial", function() {
  set.seed(1)
  model <- glmnet::cv.glmnet(as.matrix(iris[1:4]), iris$Species, family = "multinomial", nfolds = 4)
  list(model = model, rows = seven(iris, names(iris)[1:4]),
       answer = function(rows) as.character(predict(model, as.matrix(rows), type = "class")),
       probabilities = function(rows) predict(model, as.matrix(rows), type = "response")[, , 1],
       draws_lots = "out_of_range") # where a probability is not a number, it names another row's class
}, "glmnet")
kind(general, "cv.glmnet, binomial", function() {
  set.seed(1)
  model <- glmnet::cv.glmnet(as.matrix(iris[1:4]), flowers$big, family = "binomial", nfolds = 4)
  list(model = model, rows = seven(iris, names(iris)[1:4]),
       answer = function(rows) predict(model, as.matrix(rows), type = "class")[, 1], probabilities = function(rows) {
         p <- predict(model, as.matrix(rows), type = "response")[, 1]
         cbind(big = 1 - p, small = p)
       })
}, "glmnet")

mixed <- "Mixed models"
kind(mixed, "nlme::lme", function() {
  model <- nlme::lme(distance ~ age + Sex, random = ~ 1 | Subject, data = as.data.frame(nlme::Orthodont))
  list(model = model, rows = seven(as.data.frame(nlme::Orthodont), c("age", "Sex", "Subject")), answer = plain(model))
}, "nlme")
kind(mixed, "nlme::gls", function() {
  model <- nlme::gls(mpg ~ wt + gears, data = cars)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model))
}, "nlme")
kind(mixed, "lme4::lmer", function() {
  model <- lme4::lmer(Reaction ~ Days + (Days | Subject), lme4::sleepstudy)
  list(model = model, rows = seven(lme4::sleepstudy, c("Days", "Subject")), answer = plain(model))
}, "lme4")

curves <- "Curves"
kind(curves, "nls", function() {
  model <- nls(mpg ~ a * exp(b * wt), cars, start = list(a = 40, b = -0.3))
  list(model = model, rows = seven(cars, "wt"), answer = plain(model))
})
kind(curves, "nls with a self-starting model", function() {
  model <- nls(density ~ SSlogis(log(conc), Asym, xmid, scal), DNase[DNase$Run == 1, ])
  list(model = model, rows = seven(DNase, "conc"), answer = plain(model))
})
kind(curves, "loess", function() {
  model <- loess(mpg ~ wt + hp, cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = plain(model))
})
kind(curves, "smooth.spline", function() {
  model <- smooth.spline(cars$wt, cars$mpg)
  list(model = model, rows = seven(cars, "wt"), answer = function(rows) predict(model, rows$wt)$y,
       refused = "which part is the prediction", note = "predict() returns a list of x and y: say in predict.R that it is $y")
})

trees <- "Trees and forests"
kind(trees, "rpart", function() {
  model <- rpart::rpart(mpg ~ wt + gears + size, cars, minsplit = 5)
  list(model = model, rows = seven(cars, c("wt", "gears", "size")), answer = plain(model))
}, "rpart")
kind(trees, "rpart, classes", function() {
  model <- rpart::rpart(Species ~ ., iris)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = function(rows) predict(model, rows, type = "class"),
       probabilities = plain(model))
}, "rpart")
kind(trees, "randomForest with factors", function() {
  set.seed(1)
  model <- randomForest::randomForest(mpg ~ wt + gears + hp, cars, ntree = 51)
  list(model = model, rows = seven(cars, c("wt", "gears", "hp")), answer = plain(model))
}, "randomForest")
kind(trees, "randomForest of a data frame with a factor", function() {
  set.seed(1)
  model <- randomForest::randomForest(cars[c("wt", "gears")], cars$mpg, ntree = 51)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model))
}, "randomForest")
kind(trees, "randomForest, classes", function() {
  set.seed(1)
  model <- randomForest::randomForest(Species ~ ., iris, ntree = 51)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = plain(model),
       probabilities = function(rows) predict(model, rows, type = "prob"))
}, "randomForest")
kind(trees, "randomForest with an ordered factor", function() {
  set.seed(1)
  model <- randomForest::randomForest(mpg ~ size + hp, cars, ntree = 51)
  list(model = model, rows = seven(cars, c("size", "hp")), answer = plain(model), refused = "categories",
       note = "the forest does not keep the levels of ordered factors: publish them as categories")
}, "randomForest")
kind(trees, "randomForest with an ordered factor, categories published", function() {
  set.seed(1)
  model <- randomForest::randomForest(mpg ~ size + hp, cars, ntree = 51)
  list(model = model, rows = seven(cars, c("size", "hp")), answer = plain(model), categories = "size")
}, "randomForest")
kind(trees, "randomForest of a data frame with texts", function() {
  set.seed(1)
  model <- randomForest::randomForest(cars[c("wt", "shift")], cars$mpg, ntree = 51)
  list(model = model, rows = seven(cars, c("wt", "shift")), answer = plain(model), refused = "categories",
       note = "the forest keeps no texts, and R would number those of each request differently: publish categories")
}, "randomForest")
kind(trees, "ranger with unordered factors by their order", function() {
  model <- ranger::ranger(mpg ~ wt + gears + shift, cars, num.trees = 51, seed = 1, respect.unordered.factors = "order")
  list(model = model, rows = seven(cars, c("wt", "gears", "shift")), answer = function(rows) predict(model, rows)$predictions)
}, "ranger")
kind(trees, "ranger with a factor, its defaults", function() {
  model <- ranger::ranger(mpg ~ wt + gears, cars, num.trees = 51, seed = 1)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = function(rows) predict(model, rows)$predictions,
       refused = "categories", note = paste("ranger keeps no levels unless respect.unordered.factors is \"order\":",
                                            "publish them as categories"))
}, "ranger")
kind(trees, "ranger with a factor, categories published", function() {
  model <- ranger::ranger(mpg ~ wt + gears, cars, num.trees = 51, seed = 1)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = function(rows) predict(model, rows)$predictions,
       categories = "gears")
}, "ranger")
kind(trees, "ranger, classes", function() {
  model <- ranger::ranger(Species ~ ., iris, num.trees = 51, seed = 1)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = function(rows) predict(model, rows)$predictions)
}, "ranger")
kind(trees, "ranger, probabilities", function() {
  model <- ranger::ranger(Species ~ ., iris, num.trees = 51, seed = 1, probability = TRUE)
  own <- function(rows) predict(model, rows)$predictions
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = own, probabilities = own, width = 3)
}, "ranger")
kind(trees, "gbm", function() {
  set.seed(1)
  model <- gbm::gbm(mpg ~ wt + gears + hp, "gaussian", cars, n.trees = 40, n.minobsinnode = 3)
  list(model = model, rows = seven(cars, c("wt", "gears", "hp")),
       answer = function(rows) predict(model, rows, n.trees = 40))
}, "gbm")
kind(trees, "gbm, Bernoulli", function() {
  set.seed(1)
  model <- gbm::gbm(am ~ wt + hp, "bernoulli", cars, n.trees = 40, n.minobsinnode = 3)
  list(model = model, rows = seven(cars, c("wt", "hp")),
       answer = function(rows) predict(model, rows, n.trees = 40, type = "response"), probabilities = function(rows) {
         p <- predict(model, rows, n.trees = 40, type = "response")
         cbind(`0` = 1 - p, `1` = p)
       })
}, "gbm")
kind(trees, "partykit::ctree", function() {
  model <- partykit::ctree(Species ~ ., iris)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = plain(model),
       probabilities = function(rows) predict(model, rows, type = "prob"))
}, "partykit")
kind(trees, "ipred::bagging", function() {
  set.seed(1)
  model <- ipred::bagging(mpg ~ wt + gears, cars, nbagg = 10)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model))
}, "ipred")

kernels <- "Support vectors and networks"
kind(kernels, "e1071::svm", function() {
  model <- e1071::svm(mpg ~ wt + hp, cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = plain(model))
}, "e1071")
kind(kernels, "e1071::svm, classes with probabilities", function() {
  set.seed(1)
  model <- e1071::svm(Species ~ ., iris, probability = TRUE)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = plain(model), probabilities = function(rows) {
    attr(predict(model, rows, probability = TRUE), "probabilities")
  })
}, "e1071")
kind(kernels, "e1071::svm with a factor", function() {
  model <- e1071::svm(mpg ~ wt + gears, cars)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model), refused = "categories",
       note = "svm does not keep the levels: publish them as categories")
}, "e1071")
kind(kernels, "e1071::svm with a factor, categories published", function() {
  model <- e1071::svm(mpg ~ wt + gears, cars)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model), categories = "gears")
}, "e1071")
kind(kernels, "kernlab::ksvm", function() {
  model <- kernlab::ksvm(mpg ~ wt + hp, cars)
  list(model = model, rows = seven(cars, c("wt", "hp")), answer = function(rows) kernlab::predict(model, rows)[, 1])
}, "kernlab")
kind(kernels, "nnet", function() {
  set.seed(1)
  model <- nnet::nnet(mpg / 40 ~ wt + gears, cars, size = 3, trace = FALSE)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = function(rows) predict(model, rows)[, 1])
}, "nnet")
kind(kernels, "nnet, classes", function() {
  set.seed(1)
  model <- nnet::nnet(Species ~ ., iris, size = 3, trace = FALSE)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = function(rows) predict(model, rows, type = "class"),
       probabilities = function(rows) predict(model, rows))
}, "nnet")
kind(kernels, "nnet, two classes", function() {
  set.seed(1)
  model <- nnet::nnet(big ~ Sepal.Length + Sepal.Width, flowers, size = 3, trace = FALSE)
  list(model = model, rows = seven(flowers, c("Sepal.Length", "Sepal.Width")),
       answer = function(rows) predict(model, rows, type = "class"), probabilities = function(rows) {
         p <- predict(model, rows)[, 1]
         cbind(big = 1 - p, small = p)
       })
}, "nnet")

classes <- "Classification"
kind(classes, "nnet::multinom", function() {
  model <- nnet::multinom(Species ~ Sepal.Length + Petal.Width, iris, trace = FALSE)
  list(model = model, rows = seven(iris, c("Sepal.Length", "Petal.Width")), answer = plain(model),
       probabilities = function(rows) predict(model, rows, type = "probs"))
}, "nnet")
kind(classes, "nnet::multinom, two classes, with a factor", function() {
  model <- nnet::multinom(shift ~ wt + gears, cars, trace = FALSE)
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model), probabilities = function(rows) {
    p <- predict(model, rows, type = "probs")
    cbind(automatic = 1 - p, manual = p)
  })
}, "nnet")
kind(classes, "MASS::lda", function() {
  model <- MASS::lda(Species ~ ., iris)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = function(rows) predict(model, rows)$class,
       probabilities = function(rows) predict(model, rows)$posterior)
}, "MASS")
kind(classes, "MASS::lda of a matrix", function() {
  model <- MASS::lda(as.matrix(iris[1:4]), iris$Species)
  list(model = model, rows = seven(iris, rev(names(iris)[1:4])),
       answer = function(rows) predict(model, as.matrix(rows[names(iris)[1:4]]))$class,
       probabilities = function(rows) predict(model, as.matrix(rows[names(iris)[1:4]]))$posterior)
}, "MASS")
kind(classes, "MASS::qda", function() {
  model <- MASS::qda(Species ~ Sepal.Length + Sepal.Width, iris)
  list(model = model, rows = seven(iris, c("Sepal.Length", "Sepal.Width")),
       answer = function(rows) predict(model, rows)$class, probabilities = function(rows) predict(model, rows)$posterior)
}, "MASS")
kind(classes, "MASS::polr", function() {
  model <- MASS::polr(Sat ~ Infl + Type, weights = Freq, data = MASS::housing)
  list(model = model, rows = seven(MASS::housing, c("Infl", "Type")), answer = plain(model),
       probabilities = function(rows) predict(model, rows, type = "probs"))
}, "MASS")
kind(classes, "e1071::naiveBayes with factors and texts", function() {
  model <- e1071::naiveBayes(factor(am) ~ gears + wt + shift, transform(cars, shift = ifelse(hp > 150, "a", "b")))
  list(model = model, rows = seven(transform(cars, shift = ifelse(hp > 150, "a", "b")), c("gears", "wt", "shift")),
       answer = function(rows) predict(model, transform(rows, shift = factor(shift, c("a", "b")))),
       probabilities = function(rows) predict(model, transform(rows, shift = factor(shift, c("a", "b"))), type = "raw"))
}, "e1071")
kind(classes, "caret::knn3", function() {
  model <- caret::knn3(Species ~ ., iris, k = 5)
  # Between neighbours that are all infinitely far away it draws lots.
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = function(rows) predict(model, rows, type = "class"),
       probabilities = function(rows) predict(model, rows), draws_lots = "out_of_range")
}, "caret")

pipelines <- "caret and recipes"
kind(pipelines, "caret::train, lm with a factor", function() {
  model <- caret::train(mpg ~ wt + gears, cars, method = "lm", trControl = caret::trainControl("none"))
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model))
}, "caret")
kind(pipelines, "caret::train, randomForest with probabilities, centred and scaled", function() {
  set.seed(1)
  model <- caret::train(iris[1:4], iris$Species, method = "rf", tuneGrid = data.frame(mtry = 2), ntree = 51,
                        preProcess = c("center", "scale"), trControl = caret::trainControl("none", classProbs = TRUE))
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = plain(model),
       probabilities = function(rows) as.matrix(predict(model, rows, type = "prob")))
}, c("caret", "randomForest"))
kind(pipelines, "caret::train, rpart of a data frame with a factor", function() {
  model <- caret::train(cars[c("wt", "gears")], cars$mpg, method = "rpart", tuneGrid = data.frame(cp = 0.01),
                        trControl = caret::trainControl("none"))
  list(model = model, rows = seven(cars, c("wt", "gears")), answer = plain(model))
}, c("caret", "rpart"))
kind(pipelines, "caret::train with a recipe", function() {
  library(recipes)
  steps <- step_dummy(step_normalize(recipe(mpg ~ wt + hp + gears, cars), wt, hp), gears)
  model <- caret::train(steps, cars, method = "lm", trControl = caret::trainControl("none"))
  list(model = model, rows = seven(cars, c("wt", "hp", "gears")), answer = plain(model))
}, c("caret", "recipes"))
kind(pipelines, "parsnip workflow", function() stop("written where it can be run"), c("parsnip", "workflows"))
kind(pipelines, "xgboost", function() stop("written where it can be run"), "xgboost")

survival <- "Survival"
lung <- function() transform(survival::lung, sex = factor(sex, labels = c("male", "female")))
kind(survival, "survival::coxph", function() {
  library(survival)
  model <- coxph(Surv(time, status) ~ age + sex, lung())
  list(model = model, rows = seven(lung(), c("age", "sex")), answer = plain(model))
}, "survival")
kind(survival, "survival::coxph with strata and a spline", function() {
  library(survival)
  model <- coxph(Surv(time, status) ~ pspline(age, 3) + strata(sex), lung(), model = TRUE)
  list(model = model, rows = seven(lung(), c("age", "sex")), answer = plain(model))
}, "survival")
kind(survival, "survival::coxph with strata, fitted without model = TRUE", function() {
  library(survival)
  assign("patients", lung(), globalenv())
  model <- eval(quote(coxph(Surv(time, status) ~ age + strata(sex), patients)), globalenv())
  list(model = model, rows = seven(lung(), c("age", "sex")), answer = plain(model), refused = "patients",
       note = "predict() looks for the training data by its name: fit with model = TRUE")
}, "survival")
kind(survival, "survival::survreg", function() {
  library(survival)
  model <- survreg(Surv(time, status) ~ age + sex, lung())
  list(model = model, rows = seven(lung(), c("age", "sex")), answer = plain(model))
}, "survival")

series <- "Time series (the input is the number of steps ahead)"
ahead <- function(model, values) {
  list(model = model, rows = data.frame(step = c(1L, 2L, 3L, 5L, 8L, 12L, 24L)),
       answer = function(rows) as.numeric(values(max(1, rows$step, na.rm = TRUE)))[rows$step])
}
kind(series, "arima", function() {
  model <- arima(log10(AirPassengers), c(0, 1, 1), list(order = c(0, 1, 1), period = 12))
  ahead(model, function(steps) predict(model, n.ahead = steps)$pred)
})
kind(series, "HoltWinters", function() {
  model <- HoltWinters(co2)
  ahead(model, function(steps) predict(model, n.ahead = steps))
})
kind(series, "forecast::auto.arima", function() {
  model <- forecast::auto.arima(WWWusage, max.p = 2, max.q = 2)
  ahead(model, function(steps) forecast::forecast(model, h = steps)$mean)
}, "forecast")
kind(series, "forecast::ets", function() {
  model <- forecast::ets(USAccDeaths, model = "ANA")
  ahead(model, function(steps) forecast::forecast(model, h = steps)$mean)
}, "forecast")
kind(series, "arima with regressors", function() {
  model <- arima(LakeHuron, c(2, 0, 0), xreg = time(LakeHuron) - 1920)
  c(ahead(model, function(steps) rep(NA, steps)), refused = "xreg",
    note = "its rows are the steps ahead in their order: write predict_rows() in predict.R")
})

clusters <- "Components and clusters"
kind(clusters, "prcomp", function() {
  model <- prcomp(iris[1:4], scale. = TRUE, rank. = 2)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = plain(model), width = 2)
})
kind(clusters, "kmeans", function() {
  set.seed(1)
  model <- kmeans(iris[1:4], 3)
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = function(rows) NA, refused = "no predict() method",
       note = "R has no predict() for it: write in predict.R how a row gets its cluster")
})
kind(clusters, "hclust", function() {
  model <- hclust(dist(iris[1:4]))
  list(model = model, rows = seven(iris, names(iris)[1:4]), answer = function(rows) NA, refused = "no predict() method",
       note = "R has no predict() for it")
})
