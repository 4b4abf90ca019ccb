output "url" {
  description = "Cloud Run's address of the gateway."
  value       = google_cloud_run_v2_service.gateway.uri
}

output "name" {
  description = "Name of the service."
  value       = google_cloud_run_v2_service.gateway.name
}

output "member" {
  description = "The gateway's service account as an IAM member: what backends let in."
  value       = google_service_account.gateway.member
}
