le <- function(values, size = NULL) writeBin(values, raw(), if (is.null(size)) NA_integer_ else size, endian = "little")

in_binary <- function(inputs, tensors, bytes, more = "") {
  head <- sprintf('{"inputs":[%s]%s}', paste(tensors, collapse = ","), more)
  parts <- split_body(c(charToRaw(head), bytes), as.character(nchar(head)))
  read_tensors(parse_body(parts$head), inputs, parts$behind)
}

binary_tensor <- function(name, datatype, shape, size) {
  sprintf('{"name":"%s","datatype":"%s","shape":[%s],"parameters":{"binary_data_size":%d}}', name, datatype, shape,
          size)
}

test_that("each datatype is read as it is written", {
  values <- list(
    FP64 = c(5e-324, 1 / 3, -0.0, 1e308), FP32 = c(1.5, -2^-149, 0), FP16 = c(65504, -2^-24, 0.5, 1 / 3),
    INT8 = c(-128L, 127L), INT16 = c(-32768L, 32767L), INT32 = c(-2147483647L, 2147483647L),
    INT64 = c(-(2^53 - 1), 2^53 - 1, -1, 0, 2^32), UINT8 = c(0L, 255L), UINT16 = c(0L, 65535L), UINT32 = c(0, 2^32 - 1),
    UINT64 = c(0, 2^53 - 1, 2^32 + 1), BOOL = c(TRUE, FALSE), BYTES = c("", "gr\u00fcn", "\U1F600")
  )
  for (datatype in names(values)) {
    bytes <- pack(values[[datatype]], datatype)
    found <- unpack(bytes, datatype, length(values[[datatype]]), "t")
    expect_equal(found, values[[datatype]], tolerance = if (datatype == "FP16") 1e-3 else 0, info = datatype)
    expect_identical(pack(found, datatype), bytes, info = datatype)
  }
})

test_that("halves are rounded to the nearest, of two to the even one", {
  steps <- to_half(c(2049, 2051, 1 + 2^-11, 1 + 3 * 2^-11, 65519, 2^-25, 3 * 2^-25, -0.0))
  expect_equal(from_half(steps), c(2048, 2052, 1, 1 + 2^-9, 65504, 0, 2^-23, 0))
  expect_equal(1 / from_half(steps[[8]]), -Inf)
  finite <- c(0:31743, 32768:64511)
  expect_identical(to_half(from_half(finite)), finite)
})

test_that("a NaN is a missing value, in and out, and has the quiet one's bytes", {
  nan <- as.raw(c(1, 0, 0, 0, 0, 0, 0xF0, 0xFF))
  expect_equal(unpack(c(le(1), nan), "FP64", 2, "t"), c(1, NA))
  expect_identical(pack(c(NA, NaN, Inf), "FP64"), rep(as.raw(c(0, 0, 0, 0, 0, 0, 0xF8, 0x7F)), 3))
  expect_identical(pack(NA, "FP32"), as.raw(c(0, 0, 0xC0, 0x7F)))
  expect_identical(pack(NA_real_, "FP16"), as.raw(c(0, 0x7E)))
  expect_null(pack(c(1L, NA), "INT32"))
  expect_null(pack(c("a", NA), "BYTES"))
})

test_that("tensors behind the JSON are the columns, also as one matrix and next to JSON", {
  inputs <- list(tensor("a"), tensor("n", "INT32"), tensor("t", "BYTES"))
  texts <- pack(c("x", "y"), "BYTES")
  in_json <- '{"name":"n","datatype":"INT64","shape":[2],"data":[1,2]}'
  found <- in_binary(inputs, c(binary_tensor("a", "FP32", "2,1", 8L), in_json,
                               binary_tensor("t", "BYTES", "2", length(texts))), c(le(c(0.5, 1), 4L), texts))
  expect_equal(found$rows, data.frame(a = c(0.5, 1), n = 1:2, t = c("x", "y")))
  matrix <- in_binary(list(tensor("a"), tensor("b", "INT32")), binary_tensor("x", "INT8", "2,2", 4L),
                      as.raw(c(1, 2, 3, 255)))
  expect_equal(matrix$rows, data.frame(a = c(1, 3), b = c(2L, -1L)))
  arrays <- in_binary(list(tensor("a", "FP64", c(-1, 2))), binary_tensor("a", "FP64", "2,2", 32L), le(c(1, 2, 3, NaN)))
  expect_equal(unclass(arrays$rows$a), list(c(1, 2), c(3, NA)))
})

test_that("what does not add up is refused", {
  refused <- function(tensors, bytes, pattern, inputs = list(tensor("a"))) {
    expect_problem(in_binary(inputs, tensors, bytes), "invalid-instances", pattern)
  }
  refused(binary_tensor("a", "FP64", "1", 8L), raw(7), "only 7 bytes left")
  refused(binary_tensor("a", "FP64", "1", 8L), raw(9), "1 bytes that belong to no tensor")
  refused(binary_tensor("a", "FP64", "2", 8L), raw(8), "16 bytes of FP64")
  refused(binary_tensor("a", "FP64", "1", 8L), le(Inf), "a.data\\[0\\]|inputs\\[0\\].data\\[0\\]: expected a finite")
  refused(binary_tensor("a", "BOOL", "1", 1L), as.raw(2), "0 or 1", list(tensor("a", "BOOL")))
  refused(binary_tensor("a", "INT64", "1", 8L), as.raw(c(0, 0, 0, 0, 0, 0, 0x20, 0)), "exact below 2",
          list(tensor("a", "INT64")))
  refused(binary_tensor("a", "INT32", "1", 4L), as.raw(c(0, 0, 0, 0x80)), "does not fit", list(tensor("a", "INT32")))
  refused(binary_tensor("a", "INT8", "1", 1L), as.raw(7), "expected one of",
          list(c(tensor("a", "INT8"), categories = list(list(1L)))))
  text <- list(tensor("a", "BYTES"))
  refused(binary_tensor("a", "BYTES", "1", 5L), c(le(2L), charToRaw("x")), "goes beyond", text)
  refused(binary_tensor("a", "BYTES", "1", 5L), c(le(1L), as.raw(0xFF)), "not UTF-8", text)
  refused(binary_tensor("a", "BYTES", "1", 5L), c(le(1L), as.raw(0)), "U[+]0000", text)
  refused(binary_tensor("a", "BYTES", "2", 5L), c(le(1L), charToRaw("x")), "2 texts", text)
  both <- '{"name":"a","datatype":"FP64","shape":[1],"data":[1],"parameters":{"binary_data_size":8}}'
  refused(both, raw(8), "either data or")
  for (length in c("", "-1", "1e1", "0x1", "99999999999999999999")) {
    expect_problem(split_body(raw(10), length), "invalid-instances", "must be one number of bytes")
  }
  expect_problem(read_tensors(body(sprintf('{"inputs":[%s]}', binary_tensor("a", "FP64", "1", 8L))), list(tensor("a"))),
                 "invalid-instances", "needs the header")
})

test_that("outputs come in the form that is asked for", {
  service <- new_service(lm(y ~ a, data.frame(a = c(1, 2, 3), y = c(2, 4, 6))), list(
    signature = list(inputs = list(tensor("a")), outputs = list(tensor("y"))), samples = list()
  ))
  config <- list(model = "m", version = "1")
  ask <- function(more) {
    text <- sprintf('{"inputs":[{"name":"a","datatype":"FP64","shape":[2],"data":[1,null]}]%s}', more)
    answer_scoring(service, config, "infer", charToRaw(text))
  }
  binary <- ask(',"parameters":{"binary_data_output":true},"id":"7"')
  head <- jsonlite::parse_json(rawToChar(binary$json[seq_len(binary$json_bytes)]))
  expect_equal(head$outputs[[1]], list(name = "y", shape = list(2L), datatype = "FP64",
                                       parameters = list(binary_data_size = 16L)))
  expect_equal(unpack(binary$json[-seq_len(binary$json_bytes)], "FP64", 2, "y"), c(2, NA))
  own <- ',"parameters":{"binary_data_output":true},"outputs":[{"name":"y","parameters":{"binary_data":false}}]'
  expect_type(ask(own)$json, "character")
  expect_type(ask(',"outputs":[{"name":"y","parameters":{"binary_data":true}}]')$json, "raw")
  expect_type(ask(',"outputs":[]')$json, "character")
  for (wrong in c(',"parameters":{"binary_data_output":1}',
                  ',"outputs":[{"name":"y","parameters":{"classification":1}}]',
                  ',"outputs":[{"name":"y","parameters":[]}]', ',"outputs":[{"name":"y"},{"name":"y"}]')) {
    expect_equal(ask(wrong)$problem$status, 422L)
  }
})
