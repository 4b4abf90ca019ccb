skip_without_compiler <- function() {
  skip_if(!all(nzchar(Sys.which(c("g++", "make")))), "there is no compiler")
}

# Compiled once for all tests here, and taken out again after each: the other tests are of the R code.
library_folder <- withr::local_tempdir(.local_envir = teardown_env())
with_compiled <- function(code) {
  skip_without_compiler()
  expect_true(use_compiled(home, library_folder))
  on.exit(rm(list = ls(compiled), envir = compiled))
  code
}

source(file.path(home, "tests", "fuzz", "requests.R"), local = TRUE)

test_that("both readers and both writers do the same", {
  with_compiled({
    withr::local_seed(20)
    outcomes <- vapply(1:1500, function(i) compare_readers(random_request()), "")
    expect_gt(sum(outcomes == "read"), 200L)
    for (i in 1:300) compare_writers(random_values())
  })
})

test_that("requests that are right are read by the compiled part", {
  with_compiled({
    read <- function(kind, text, inputs = fuzz_numbers) {
      read_compiled(kind, charToRaw(enc2utf8(text)), reading_plan(inputs), datatype_plan())
    }
    expect_equal(read("predict", '{"instances":[{"a":1,"g":2},{"g":null,"a":-1e3},[5,6]]}')$rows,
                 data.frame(a = c(1, -1000, 5), g = c(2, NA, 6)))
    expect_equal(read("predict", '{"parameters":{"type":"y"},"instances":[]}')$parameters, list(type = "y"))
    # A name that stands twice, wherever, is left to the R code.
    tensor <- '"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]'
    twice <- c('{"instances":[[1,2]],"instances":[[1,2]]}', '{"instances":[{"a":1,"g":2,"a":3}]}',
               '{"instances":[{"a":1,"\\u0061":3,"g":2}]}', '{"parameters":{"p":{"q":1,"q":2}},"instances":[]}')
    for (text in twice) expect_null(read("predict", text))
    expect_false(is.null(read("infer", sprintf('{"inputs":[{%s}]}', tensor))))
    for (more in c('"name":"x"', '"shape":[1,2]', '"datatype":"FP32"', '"data":[1,2]', '"parameters":{"c":1,"c":1}')) {
      expect_null(read("infer", sprintf('{"inputs":[{%s,%s}]}', tensor, more)))
    }
    for (more in c('"inputs":[]', '"id":"1","id":"1"', '"outputs":[{"name":"p","name":"p"}]')) {
      expect_null(read("infer", sprintf('{"inputs":[{%s}],%s}', tensor, more)))
    }
    infer <- read("infer", paste0('{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}],',
                                  '"outputs":[{"name":"p"}]}'))
    expect_equal(infer$rows, data.frame(a = c(1, 3), g = c(2, 4)))
    expect_equal(infer[c("id", "picked", "count")], list(id = "7", picked = "p", count = 2L))
    texts <- Filter(function(input) input$datatype == "BYTES", fuzz_inputs)
    rows <- read("predict", '{"instances":[["\\ud83d\\ude00\\n","gr\u00fcn"]]}', texts)$rows
    expect_equal(rows[[1]], "\U1F600\n")
    expect_equal(rows[[2]], factor("gr\u00fcn", c("red", "gr\u00fcn", "")))
  })
})

test_that("what is wrong is left to the R code, which says where", {
  with_compiled({
    inputs <- list(tensor("a"), tensor("b", "INT32"))
    service <- new_service(NULL, list(signature = list(inputs = inputs, outputs = list()), samples = list()))
    expect_problem(read_scoring(service, "predict", charToRaw('{"instances":[[1,2],[1,"x"]]}')), "invalid-instances",
                   "instances\\[1\\]\\[1\\]: expected an integer")
    expect_problem(read_scoring(service, "predict", charToRaw('{"instances":[[1,2]]')), "malformed-json", "line 1")
    # Shapes that promise more than the body can hold must not be believed.
    huge <- '{"inputs":[{"name":"x","shape":[2147483646,2],"datatype":"FP64","data":[1,2]}]}'
    expect_problem(read_scoring(service, "infer", charToRaw(huge)), "invalid-instances", "shape")
  })
})

test_that("a library is found again, and the reason is said where there is none", {
  with_compiled(TRUE)
  on.exit(rm(list = ls(compiled), envir = compiled))
  withr::local_envvar(PATH = "/nowhere")
  expect_match(use_compiled(home, withr::local_tempdir()), "there is no g[+][+] and no make")
  expect_false(has_compiled())
  expect_true(file.exists(file.path(library_folder, compiled_name(file.path(home, "src")))))
  expect_true(use_compiled(home, library_folder))
})

test_that("sources that do not compile are said to be so", {
  skip_without_compiler()
  broken <- withr::local_tempdir()
  dir.create(file.path(broken, "src"))
  writeLines("this is no C++", file.path(broken, "src", "a.cpp"))
  expect_match(use_compiled(broken, withr::local_tempdir()), "does not compile")
})
