cars <- transform(mtcars, gears = factor(gear))
model <- lm(mpg ~ gears + factor(cyl), cars)

test_that("levels are those of training, also those of a term", {
  rows <- with_levels(data.frame(gears = c("4", NA), cyl = c(4, 6)), model)
  expect_equal(rows$gears, factor(c("4", NA), c("3", "4", "5")))
  expect_problem(with_levels(data.frame(gears = c("4", "9"), cyl = 4), model), "invalid-instances",
                 "instances\\[1\\].gears: expected one of \"3\", \"4\", \"5\", got \"9\"")
  expect_problem(with_levels(data.frame(gears = "4", cyl = c(4, 5)), model), "invalid-instances",
                 "instances\\[1\\].cyl: expected one of \"4\", \"6\", \"8\", got 5")
})

test_that("a model that does not keep its levels must have them published", {
  forest <- ranger::ranger(mpg ~ wt + gears, cars, num.trees = 5L, seed = 1L)
  expect_error(with_levels(data.frame(wt = 3, gears = "4"), forest), "categories")
  rows <- data.frame(wt = 3, gears = factor("4", levels(cars$gears)))
  expect_identical(with_levels(rows, forest), rows)
  ordered <- ranger::ranger(mpg ~ wt + gears, cars, num.trees = 5L, seed = 1L, respect.unordered.factors = "order")
  expect_setequal(levels(with_levels(data.frame(wt = 3, gears = "4"), ordered)$gears), levels(cars$gears))
})

test_that("packages are found by the classes and the formulas of a model", {
  expect_equal(needed_packages(model), character())
  spline <- lm(mpg ~ splines::ns(wt, 2), cars)
  attr(spline$terms, "variables") <- quote(list(mpg, ns(wt, 2)))
  expect_equal(needed_packages(spline), "splines")
  expect_equal(needed_packages(structure(list(), class = "ranger")), "ranger")
  expect_error(choose_package(c("gam", "mgcv"), character(), model, "gam", "methods"), "in the packages gam, mgcv")
  expect_equal(choose_package(c("gam", "mgcv"), "mgcv", model, "gam", "methods"), "mgcv")
})
