# Production: nothing in it can be deleted by accident, and one gateway is always warm.

terraform {
  # terraform init -backend-config=bucket=YOUR-STATE-BUCKET
  backend "gcs" {
    prefix = "chips/prod"
  }
}

module "chips" {
  source           = "../../modules/environment"
  project          = var.project
  region           = var.region
  protected        = true
  artifact_bucket  = var.artifact_bucket
  gateway_image    = var.gateway_image
  allowed_networks = var.allowed_networks
  public           = var.public
  models           = var.models
  alert_emails     = var.alert_emails
  readers          = var.readers
  registrars       = var.registrars
  approvers        = var.approvers
  operators        = var.operators
  auditors         = var.auditors
  audit_bucket     = var.audit_bucket
  audit_project    = var.audit_project
  rollouts         = var.rollouts
  publishers       = var.publishers
  domains          = var.domains

  gateway_min_instances = 1
  gateway_max_instances = var.gateway_max_instances
  log_retention_days    = 400

  billing_account = var.billing_account
  project_number  = var.project_number
  monthly_budget  = var.monthly_budget
}
