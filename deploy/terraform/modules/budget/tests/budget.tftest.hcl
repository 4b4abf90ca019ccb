mock_provider "google" {}

variables {
  project         = "my-project"
  project_number  = "123456789012"
  billing_account = "012345-6789AB-CDEF01"
  monthly_amount  = 500
}

run "somebody_is_told_before_the_month_is_over" {
  command = plan
  assert {
    condition     = anytrue([for rule in google_billing_budget.monthly.threshold_rules : rule.spend_basis == "FORECASTED_SPEND"])
    error_message = "the forecast counts too"
  }
}

run "a_budget_takes_five_channels" {
  command = plan
  variables {
    channels = ["a", "b", "c", "d", "e", "f"]
  }
  expect_failures = [var.channels]
}

run "a_billing_account_has_its_form" {
  command = plan
  variables {
    billing_account = "mine"
  }
  expect_failures = [var.billing_account]
}
