output "url" {
  description = "Address to register: python -m gateway.register MODEL URL."
  value       = google_cloud_run_v2_service.backend.uri
}

output "service_account" {
  description = "The backend's account."
  value       = google_service_account.backend.email
}

output "service_account_name" {
  description = "The account's resource name, for grants on it."
  value       = google_service_account.backend.name
}
