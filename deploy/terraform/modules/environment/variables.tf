variable "project" {
  description = "Google Cloud project of this environment; each environment has its own."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project's id has 6 to 30 of a-z, 0-9 and -, and begins with a letter."
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
}

variable "protected" {
  description = "Whether databases, buckets and services refuse to be deleted. True in production."
  type        = bool
}

variable "database" {
  description = "Name of the Firestore database with the registry."
  type        = string
  default     = "chips"
}

variable "artifact_bucket" {
  description = "Name of the artifact bucket."
  type        = string
}

variable "artifact_retention_days" {
  description = "In a protected environment: days in which no artifact can be deleted or replaced."
  type        = number
  default     = 30
}

variable "gateway_image" {
  description = "Image of the gateway, pinned by digest."
  type        = string
}

variable "gateway_min_instances" {
  description = "Gateway instances that are kept when nobody calls."
  type        = number
  default     = 0
}

variable "gateway_max_instances" {
  description = "Most gateway instances."
  type        = number
  default     = 10
}

variable "allowed_networks" {
  description = "Networks whose callers are admitted."
  type        = list(string)
  default     = []
}

variable "public" {
  description = "Whether requests reach the gateway without Cloud Run's own authentication."
  type        = bool
  default     = false
}

variable "invokers" {
  description = "IAM members who may call the gateway where it is not public."
  type        = list(string)
  default     = []
}

variable "domains" {
  description = "Own domains, served by a load balancer with Cloud Armor. Empty: Cloud Run's address alone."
  type        = list(string)
  default     = []
}

variable "settings" {
  description = "Further settings of the gateway by their environment names."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Settings of the gateway that Secret Manager holds."
  type        = map(object({ secret = string, version = optional(string, "latest") }))
  default     = {}
}

variable "models" {
  description = "Backends by the model's name. `chips deploy` brings later versions; this makes the service."
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

variable "publishers" {
  description = "IAM members who may publish artifacts."
  type        = list(string)
  default     = []
}

variable "alert_emails" {
  description = "Who is told when something is wrong."
  type        = list(string)
  default     = []
}

variable "log_retention_days" {
  description = "How long request logs are kept."
  type        = number
  default     = 90
}

variable "billing_account" {
  description = "Billing account of the budget. Empty: no budget."
  type        = string
  default     = ""
}

variable "project_number" {
  description = "The project's number; needed with a budget."
  type        = string
  default     = "0"
}

variable "monthly_budget" {
  description = "Budget of one month, in whole units of the currency."
  type        = number
  default     = 100
}

variable "currency" {
  description = "Currency of the billing account."
  type        = string
  default     = "USD"
}

variable "rollouts" {
  description = "Whether a controller takes the steps of rollouts (chips canary): one small instance that always runs."
  type        = bool
  default     = false
}

variable "figures_database" {
  description = "The database that gateways report to while a rollout runs."
  type        = string
  default     = "chips-figures"
}

variable "rollout_webhook_secret" {
  description = "Secret that signs what the webhooks of rollouts get. Empty: they get nothing."
  type        = string
  default     = ""
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

variable "audit_retention_days" {
  description = "Days for which a head of the history is kept, whatever anybody does."
  type        = number
  default     = 730
}
