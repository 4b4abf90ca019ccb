# Publish what train.R has written, as chips_publish() does from an R session: OUT/NUMBER/ becomes zoo-NUMBER@1 in OUT/store.
# The backend's functions are there already.
out <- commandArgs(TRUE)[[1]]
as_tensor <- function(input) {
  chips_tensor(input$name, input$datatype, categories = if (!is.null(input$categories)) unlist(input$categories))
}
for (file in Sys.glob(file.path(out, "*", "truth.json"))) {
  truth <- jsonlite::read_json(file)
  model <- file.path(dirname(file), "model.rds")
  if (!file.exists(model)) next
  outputs <- lapply(truth$outputs, chips_tensor)
  if (length(truth$width)) outputs <- list(chips_tensor("prediction", shape = c(-1L, truth$width)))
  chips_publish(model, paste0("zoo-", basename(dirname(file))), "1", inputs = lapply(truth$inputs, as_tensor),
                outputs = outputs, store = file.path(out, "store"), by = "zoo")
}
