malformed <- c(
  "", "   ", "nul", "[1,]", "{a:1}", "['a']", "[1] 2", "[01]", "[1.]", "[.5]", "[+1]", "[NaN]", "[Infinity]",
  "[1 /* comment */]", "[1] // comment", "[\"\\x\"]", "[\"a\nb\"]", "[\"\\ud800\"]", "[\"\\udc00\\ud800\"]", "[1e400]",
  "[-1e400]", "[", "{\"a\"", "\ufeff[1]"
)

test_that("what is not JSON is malformed, with its place", {
  for (text in malformed) expect_problem(body(text), "malformed-json", "JSON")
  expect_problem(body("{\n  \"a\": x}"), "malformed-json", "line 2, column 8")
  expect_problem(parse_body(as.raw(c(0x5b, 0x31, 0x5d, 0))), "malformed-json", "zero byte at line 1, column 4")
  # The place in the body, also behind characters of several bytes.
  latin <- c(charToRaw("[1,\n\"\u00fc"), as.raw(c(0xfc, 0x22, 0x5d)))
  expect_problem(parse_body(latin), "malformed-json", "not UTF-8: .* line 2, column 4")
  expect_problem(parse_body(as.raw(c(0x22, 0xed, 0xa0, 0x80, 0x22))), "malformed-json", "line 1, column 2")
})

test_that("the text says what to send instead", {
  for (text in c("[NaN]", "[1, -Infinity]", "[1e400]")) expect_problem(body(text), "malformed-json", "send null")
  expect_problem(body(""), "malformed-json", "empty: send a JSON object")
  expect_problem(body("\ufeff[1]"), "malformed-json", "byte order mark .* without one")
})

test_that("nesting is bounded, whatever is in the strings", {
  deep <- function(n) paste0(strrep("[", n), strrep("]", n))
  expect_type(body(deep(900))$value, "list")
  for (n in c(1000, 1e5, 1e6)) expect_problem(body(deep(n)), "malformed-json", "deep")
  expect_length(body(paste0("[", paste(rep("[\"[[[\\\"[\"]", 2000), collapse = ","), "]"))$value, 2000)
})

test_that("what is JSON is taken, though a part looks like what is not", {
  expect_equal(body("[\"\\ud83d\\ude00\", \"\\\\ud800\", \"// 1e400\"]")$value[[1]], "\U1F600")
  expect_equal(body("[1e-400, 1e308]")$value, list(0, 1e308))
  expect_problem(body("[\"a\\u0000b\"]"), "invalid-instances", "U\\+0000")
  expect_equal(names(body("{\"\u00fc\": 1}")$value), "\u00fc")
})

test_that("values come out as JSON, doubles exactly", {
  expect_equal(json_values(c(0.1, 1 / 3, 1e22, 3, -0.5, NA, NaN, Inf)),
               c("0.1", "0.3333333333333333", "1e+22", "3.0", "-0.5", "null", "null", "null"))
  set.seed(1)
  x <- c(runif(2000), rexp(2000) * 10^sample(-300:300, 2000, TRUE), .Machine$double.xmax, .Machine$double.xmin, 5e-324)
  expect_identical(as.numeric(json_values(x)), x)
  expect_equal(json_values(c(1, 2), whole = TRUE), c("1", "2"))
  expect_equal(json_values(c(1L, NA)), c("1", "null"))
  expect_equal(json_values(c(TRUE, NA)), c("true", "null"))
  expect_equal(json_values(factor(c("a", NA, "b"))), c("\"a\"", "null", "\"b\""))
  expect_equal(json_values(as.Date(c("2026-11-24", NA))), c("\"2026-11-24\"", "null"))
  expect_equal(json_values(as.POSIXct(c(0, 0.25), origin = "1970-01-01", tz = "UTC")),
               c("\"1970-01-01T00:00:00Z\"", "\"1970-01-01T00:00:00.25Z\""))
  expect_error(json_values(1i), "cannot be written")
})

test_that("texts are escaped, and read back the same", {
  texts <- c("plain", "\"quoted\"", "back\\slash", "line\nbreak\ttab\001", "\u00fcn\u00ef \U1F600", "")
  expect_equal(unlist(jsonlite::parse_json(json_array(json_string(texts)))), texts)
  expect_equal(json_string(character()), character())
  ascii <- json_ascii(json_string("\u00fc \U1F600 \""))
  expect_match(ascii, "^[ -~]+$")
  expect_equal(jsonlite::parse_json(ascii), "\u00fc \U1F600 \"")
})

test_that("one value, none, and nothing keep their shapes", {
  expect_equal(json_value(list(a = 1L, b = I(1L), c = list(), d = structure(list(), names = character()), e = NULL)),
               "{\"a\":1,\"b\":[1],\"c\":[],\"d\":{},\"e\":null}")
})
