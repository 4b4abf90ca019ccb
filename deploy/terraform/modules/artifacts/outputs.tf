output "url" {
  description = "What CHIPS_ARTIFACTS is set to."
  value       = "gs://${google_storage_bucket.artifacts.name}"
}

output "bucket" {
  description = "Name of the bucket."
  value       = google_storage_bucket.artifacts.name
}

output "images" {
  description = "Where images are pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "repository" {
  description = "Name of the image repository."
  value       = google_artifact_registry_repository.images.repository_id
}
