test_that("traceparent is read, and nothing that is not one", {
  trace <- read_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
  expect_equal(trace, list(trace_id = "0af7651916cd43dd8448eb211c80319c", span_id = "b7ad6b7169203331",
                           sampled = TRUE))
  bad <- c("", "00-0af7", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           paste0("00-", strrep("0", 32), "-b7ad6b7169203331-01"),
           "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
  for (header in bad) expect_null(read_trace(header, "0af7651916cd43dd8448eb211c80319c/1;o=1"))
})

test_that("Google's older header is read where traceparent is absent", {
  trace <- read_trace(NULL, "0AF7651916cd43dd8448eb211c80319c/13235353014750950193;o=1")
  expect_equal(trace, list(trace_id = "0af7651916cd43dd8448eb211c80319c", span_id = "b7ad6b7169203331",
                           sampled = TRUE))
  expect_equal(read_trace(NULL, strrep("a", 32))$span_id, strrep("0", 16))
  expect_equal(read_trace(NULL, paste0(strrep("a", 32), "/18446744073709551615"))$span_id, strrep("f", 16))
  expect_null(read_trace(NULL, NULL))
})
