# Development: scales to nothing, can be torn down, and is the example to copy.

terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8"
    }
  }
  # terraform init -backend-config=bucket=YOUR-STATE-BUCKET
  backend "gcs" {
    prefix = "chips/dev"
  }
}

provider "google" {
  project = var.project
  region  = var.region
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
}
