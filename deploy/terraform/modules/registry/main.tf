# The registry: one Firestore database, recoverable to any minute of the last week and backed up each day.

resource "google_firestore_database" "registry" {
  project                           = var.project
  name                              = var.database
  location_id                       = var.location
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.deletion_protection ? "ABANDON" : "DELETE"
}

resource "google_firestore_backup_schedule" "daily" {
  project   = var.project
  database  = google_firestore_database.registry.name
  retention = "${var.backup_retention_days * 86400}s"
  daily_recurrence {}
}

resource "google_firestore_backup_schedule" "weekly" {
  project   = var.project
  database  = google_firestore_database.registry.name
  retention = "8467200s" # fourteen weeks, the longest there is
  weekly_recurrence {
    day = "SUNDAY"
  }
}
