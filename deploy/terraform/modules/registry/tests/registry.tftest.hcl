mock_provider "google" {}

variables {
  project  = "my-project"
  location = "europe-west1"
}

run "it_is_protected_and_recoverable" {
  command = plan
  assert {
    condition     = google_firestore_database.registry.delete_protection_state == "DELETE_PROTECTION_ENABLED" && google_firestore_database.registry.deletion_policy == "ABANDON"
    error_message = "a registry is protected unless it says otherwise"
  }
  assert {
    condition     = google_firestore_backup_schedule.daily.retention == "604800s"
    error_message = "daily backups are kept for a week"
  }
}

run "its_address_is_the_gateways_setting" {
  command = plan
  assert {
    condition     = output.url == "firestore://my-project/chips"
    error_message = "the address names project and database"
  }
}

run "backups_are_kept_98_days_at_most" {
  command = plan
  variables {
    backup_retention_days = 100
  }
  expect_failures = [var.backup_retention_days]
}
