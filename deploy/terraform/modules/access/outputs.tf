output "approver_account" {
  description = "The account whose identity tokens approvers sign with; null without approvers."
  value       = one(google_service_account.approver[*].email)
}
