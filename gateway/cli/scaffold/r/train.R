# Train @NAME@ and save it to trained/. Put your own data and model here.
#
#     Rscript train.R [--overwrite]

# The library, which this folder depends on and does not contain.
chips <- Sys.getenv("CHIPS", "chips")
home <- system(paste(chips, "version --library r"), intern = TRUE)
for (file in Sys.glob(file.path(home, "R", "*.R"))) source(file)

overwrite <- "--overwrite" %in% commandArgs(trailingOnly = TRUE)
if (file.exists("trained") && !overwrite) {
  stop("trained/ is there already: Rscript train.R --overwrite replaces what an earlier run saved")
}

measured <- data.frame(
  type = as.character(CO2$Type), treatment = as.character(CO2$Treatment), conc = CO2$conc, uptake = CO2$uptake
)
model <- glm(uptake ~ type * treatment + type * log(conc), family = Gamma("log"), data = measured)
chips_save(model, "trained", example = measured, training = measured, overwrite = overwrite, predict = "predict.R")
