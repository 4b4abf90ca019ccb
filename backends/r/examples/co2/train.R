#!/usr/bin/env Rscript
# Train a small real model: how much carbon dioxide does a grass take up, by its origin, its treatment, and the
# concentration in the air?
#
#     Rscript backends/r/examples/co2/train.R OUT [--forest]
#
# writes OUT/model.rds, OUT/signature.json and OUT/samples.json, which `chips publish` takes; or, with
# --publish STORE, publishes it as co2@1 by chips_publish(). The data are R's own `CO2`: 84 measurements of twelve
# plants of Echinochloa crus-galli (Potvin, Lechowicz and Tardif, 1990). --forest fits a random forest (ranger) instead
# of a generalized linear model.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[[1]]))
for (file in sort(Sys.glob(file.path(here, "..", "..", "R", "*.R")))) source(file)
source(file.path(here, "..", "..", "predict.R"))

options <- commandArgs(trailingOnly = TRUE)
forest <- "--forest" %in% options
store <- options[match("--publish", options) + 1L]
out <- options[!startsWith(options, "--")][1]
if (is.na(out)) stop("usage: train.R OUT [--forest] | train.R --publish STORE [--forest]")

measured <- data.frame(
  type = as.character(CO2$Type), treatment = as.character(CO2$Treatment), conc = CO2$conc, uptake = CO2$uptake
)
# Three plants that the model has not seen say how good it is.
unseen <- CO2$Plant %in% c("Qn3", "Qc3", "Mn3")
formula <- uptake ~ type * treatment + type * log(conc)
model <- if (forest) {
  # With any other treatment of factors ranger does not keep their levels, and a backend could not know them.
  ranger::ranger(uptake ~ type + treatment + conc, measured[!unseen, ], num.trees = 200L, seed = 7L, num.threads = 1L,
                 respect.unordered.factors = "order")
} else {
  stats::glm(formula, family = stats::Gamma("log"), data = measured[!unseen, ])
}
error <- predict_rows(model, measured[unseen, 1:3], list()) - measured$uptake[unseen]
cat(sprintf("mean error on %d measurements of plants it has not seen: %.1f of %.1f\n", sum(unseen), mean(abs(error)),
            mean(measured$uptake[unseen])))

# A formula keeps the environment that it was written in, and a model its data: neither is needed to predict.
if (!forest) {
  environment(model$formula) <- environment(model$terms) <- globalenv()
  model[c("data", "model", "y", "residuals", "fitted.values", "effects", "weights", "prior.weights",
          "linear.predictors", "offset")] <- NULL
  model$qr$qr <- NULL
}

inputs <- list(chips_tensor("type", "BYTES"), chips_tensor("treatment", "BYTES"), chips_tensor("conc", "FP64"))
outputs <- list(chips_tensor("uptake", "FP64"))
examples <- measured[unseen, 1:3][c(1, 9, 20), ]
samples <- lapply(seq_len(nrow(examples)), function(at) {
  row <- examples[at, , drop = FALSE]
  list(request = list(instances = list(as.list(row))),
       response = list(predictions = I(unname(predict_rows(model, row, list())))))
})

if (!is.na(store)) {
  chips_publish(model, "co2", "1", inputs, outputs, samples, store = store, packages = if (forest) "ranger" else NULL)
} else {
  chips_save(model, out, example = measured[unseen, ], overwrite = TRUE, packages = if (forest) "ranger" else NULL)
}
