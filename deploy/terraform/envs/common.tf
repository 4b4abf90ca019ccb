# What every environment has: `common.tf` in dev, qa and prod is a link to this file.

terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

variable "project" {
  description = "Google Cloud project of this environment."
  type        = string
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "europe-west1"
}

variable "artifact_bucket" {
  description = "Name of the artifact bucket."
  type        = string
}

variable "gateway_image" {
  description = "Image of the gateway, pinned by digest."
  type        = string
}

variable "allowed_networks" {
  description = "Networks whose callers are admitted."
  type        = list(string)
}

variable "public" {
  description = "Whether requests reach the gateway without Cloud Run's own authentication. The gateway's keys still hold."
  type        = bool
  default     = false
}

variable "models" {
  description = "Backends by the model's name."
  type = map(object({
    version           = string
    image             = string
    concurrency       = optional(number, 1)
    memory            = optional(string, "1Gi")
    cpu               = optional(number, 1)
    min_instances     = optional(number, 0)
    max_instances     = optional(number, 4)
    request_timeout_s = optional(number, 60)
  }))
  default = {}
}

variable "alert_emails" {
  description = "Who is told when something is wrong."
  type        = list(string)
  default     = []
}

variable "publishers" {
  description = "IAM members who may publish artifacts."
  type        = list(string)
  default     = []
}

variable "domains" {
  description = "Own domains, served by a load balancer with Cloud Armor."
  type        = list(string)
  default     = []
}

output "chips" {
  description = "Addresses and settings for the command line."
  value       = module.chips
}

variable "rollouts" {
  description = "Whether a controller takes the steps of rollouts (chips canary): one small instance that always runs."
  type        = bool
  default     = false
}

variable "readers" {
  description = "IAM members who may see models, artifacts, images and services."
  type        = list(string)
  default     = []
}

variable "registrars" {
  description = "IAM members who may register models, publish artifacts and push images."
  type        = list(string)
  default     = []
}

variable "approvers" {
  description = "IAM members who may approve versions; none of them is a registrar or an operator."
  type        = list(string)
  default     = []
}

variable "operators" {
  description = "IAM members who may deploy backends, and read logs and figures."
  type        = list(string)
  default     = []
}

variable "auditors" {
  description = "IAM members who may read the registry, its kept heads and the audit log."
  type        = list(string)
  default     = []
}

variable "audit_bucket" {
  description = "Name of a bucket for signed heads of the history; its retention is locked in production. Empty: none is made."
  type        = string
  default     = ""
}

variable "audit_project" {
  description = "Project of that bucket; best one that the registry's administrators do not own. Empty: this one."
  type        = string
  default     = ""
}
