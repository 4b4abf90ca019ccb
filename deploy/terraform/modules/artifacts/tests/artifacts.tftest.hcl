mock_provider "google" {}

variables {
  project  = "my-project"
  region   = "europe-west1"
  location = "europe-west1"
  bucket   = "my-artifacts"
}

run "no_retention_unless_asked" {
  command = plan
  assert {
    condition     = length(google_storage_bucket.artifacts.retention_policy) == 0
    error_message = "retention cannot be shortened later, so it is never a surprise"
  }
}

run "retention_is_in_seconds" {
  command = plan
  variables {
    retention_days = 30
  }
  assert {
    condition     = tonumber(google_storage_bucket.artifacts.retention_policy[0].retention_period) == 2592000
    error_message = "thirty days"
  }
}

run "a_bucket_name_that_cannot_be" {
  command = plan
  variables {
    bucket = "My Bucket"
  }
  expect_failures = [var.bucket]
}
