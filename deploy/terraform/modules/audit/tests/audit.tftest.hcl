mock_provider "google" {}

variables {
  project        = "my-project"
  bucket         = "my-heads"
  location       = "europe-west1"
  gateway_member = "serviceAccount:gateway@my-project.iam.gserviceaccount.com"
}

run "it_is_locked_unless_it_says_otherwise" {
  command = plan
  assert {
    condition     = google_storage_bucket.heads.retention_policy[0].is_locked == true && google_storage_bucket.heads.retention_policy[0].retention_period == 63072000
    error_message = "two years, locked"
  }
}

run "a_gateway_may_create_and_read_and_nothing_else" {
  command = plan
  assert {
    condition     = toset([for grant in google_storage_bucket_iam_member.gateway : grant.role]) == toset(["roles/storage.objectCreator", "roles/storage.objectViewer"])
    error_message = "a gateway must not replace what it has written"
  }
}

run "it_keeps_something" {
  command = plan
  variables {
    retention_days = 0
  }
  expect_failures = [var.retention_days]
}
