# Development: scales to nothing, can be torn down, and is the example to copy.

terraform {
  # terraform init -backend-config=bucket=YOUR-STATE-BUCKET
  backend "gcs" {
    prefix = "chips/dev"
  }
}

module "chips" {
  source           = "../../modules/environment"
  project          = var.project
  region           = var.region
  protected        = false
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
}
