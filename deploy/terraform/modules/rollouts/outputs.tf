output "figures_url" {
  description = "Where gateways report while a rollout runs: CHIPS_ROLLOUTS__FIGURES."
  value       = local.figures_url
}

output "member" {
  description = "The controller's service account as an IAM member."
  value       = google_service_account.controller.member
}
