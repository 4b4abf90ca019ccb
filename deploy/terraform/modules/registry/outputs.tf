output "url" {
  description = "What CHIPS_REGISTRY is set to."
  value       = "firestore://${var.project}/${google_firestore_database.registry.name}"
}

output "database" {
  description = "Name of the database."
  value       = google_firestore_database.registry.name
}
