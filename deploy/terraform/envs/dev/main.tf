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
  registrars       = var.registrars
  rollouts         = var.rollouts
  publishers       = var.publishers
  domains          = var.domains
}
