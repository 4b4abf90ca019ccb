mock_provider "google" {}

variables {
  project         = "my-project"
  region          = "europe-west1"
  database        = "chips"
  artifact_bucket = "artifacts"
  repository      = "chips"
  registrars      = ["user:ana@example.com"]
  approvers       = ["user:bea@example.com"]
}

run "a_registrar_may_erase_nothing" {
  command = plan
  assert {
    condition     = length([for permission in google_project_iam_custom_role.registrar.permissions : permission if !can(regex("[.](get|list|create|update)$", permission))]) == 0
    error_message = "only these four verbs"
  }
}

run "nobody_registers_and_approves" {
  command = plan
  variables {
    approvers = ["user:ana@example.com"]
  }
  expect_failures = [var.approvers]
}

run "nobody_deploys_and_approves" {
  command = plan
  variables {
    operators = ["user:bea@example.com"]
  }
  expect_failures = [var.approvers]
}

run "without_a_second_place_nobody_is_let_into_it" {
  command = plan
  assert {
    condition     = length(google_storage_bucket_iam_member.heads) == 0
    error_message = "there is no bucket"
  }
}
