output "gateway_url" {
  description = "Cloud Run's address of the gateway."
  value       = module.gateway.url
}

output "edge_address" {
  description = "IP address for the domains' A records; null without domains."
  value       = one(module.edge[*].address)
}

output "registry_url" {
  description = "CHIPS_REGISTRY for the command line."
  value       = module.registry.url
}

output "artifacts_url" {
  description = "CHIPS_ARTIFACTS for the command line."
  value       = module.artifacts.url
}

output "images" {
  description = "Where images are pushed to."
  value       = module.artifacts.images
}

output "backends" {
  description = "Addresses to register, by model."
  value       = { for name, backend in module.backend : name => backend.url }
}

output "audit_url" {
  description = "CHIPS_AUDIT__SECOND_PLACE for the command line and the gateway; null without a bucket."
  value       = one(module.audit[*].url)
}

output "approver_account" {
  description = "The account whose identity tokens approvers sign with; null without approvers."
  value       = module.access.approver_account
}
