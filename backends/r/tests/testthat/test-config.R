right <- list(CHIPS_MODEL = "co2", CHIPS_VERSION = "1", CHIPS_ARTIFACT = "/models/co2/1")

test_that("the defaults are the contract's", {
  config <- read_config(right)
  expect_equal(config[c("port", "max_body_bytes")], list(port = 8080L, max_body_bytes = 31 * 1024^2))
  expect_equal(config$concurrency, available_cpus())
  expect_equal(basename(config$cache_dir), "chips")
})

test_that("Vertex AI's names count where ours are absent", {
  vertex <- list(CHIPS_MODEL = "co2", CHIPS_VERSION = "1", AIP_STORAGE_URI = "gs://b/m", AIP_HTTP_PORT = "9000",
                 AIP_PREDICT_ROUTE = "/v1/endpoints/1:predict")
  config <- read_config(vertex)
  expect_equal(config[c("artifact", "port", "predict_route")],
               list(artifact = "gs://b/m", port = 9000L, predict_route = "/v1/endpoints/1:predict"))
  expect_error(read_config(c(vertex, AIP_HEALTH_ROUTE = "health")), "AIP_HEALTH_ROUTE")
  expect_equal(read_config(c(vertex, PORT = "9001"))$port, 9001L)
  vertex[c("CHIPS_MODEL", "CHIPS_VERSION")] <- NULL
  expect_equal(read_config(vertex)[c("model", "version")], list(model = "", version = ""))
})

test_that("a container's share of the processors counts", {
  share <- withr::local_tempfile(lines = "100000 100000")
  expect_equal(available_cpus(share), 1L)
  writeLines("max 100000", share)
  expect_equal(available_cpus(share), available_cpus(tempfile()))
})

test_that("everything that is wrong is said at once", {
  wrong <- list(CHIPS_MODEL = "A b", CHIPS_ARTIFACT_DIGEST = "sha256:x",
                CHIPS_VERSOIN = "1", PORT = "x", CHIPS_CONCURRENCY = "0", CHIPS_REGISTRY = "fine",
                CHIPS_LOG__LEVEL = "fine")
  text <- conditionMessage(expect_error(read_config(wrong)))
  for (part in c("CHIPS_VERSOIN is not known; did you mean CHIPS_VERSION\\?", "CHIPS_MODEL='A b' is not allowed",
                 "CHIPS_ARTIFACT_DIGEST='sha256:x' is not allowed", "CHIPS_ARTIFACT is not set",
                 "PORT='x' is not a whole number from 0 to 65535",
                 "CHIPS_CONCURRENCY='0'")) expect_match(text, part)
  expect_no_match(text, "REGISTRY|LOG__LEVEL")
})
