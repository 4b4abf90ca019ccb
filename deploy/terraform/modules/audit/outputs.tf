output "bucket" {
  description = "Name of the bucket."
  value       = google_storage_bucket.heads.name
}

output "url" {
  description = "What CHIPS_AUDIT__SECOND_PLACE is set to."
  value       = "gs://${google_storage_bucket.heads.name}"
}
