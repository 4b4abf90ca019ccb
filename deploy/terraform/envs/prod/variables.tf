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

variable "registrars" {
  description = "IAM members who may register models."
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

variable "auditors" {
  description = "IAM members who may read the registry and its history."
  type        = list(string)
  default     = []
}

variable "gateway_max_instances" {
  description = "Most gateway instances."
  type        = number
  default     = 20
}

variable "billing_account" {
  description = "Billing account of the budget."
  type        = string
}

variable "project_number" {
  description = "The project's number."
  type        = string
}

variable "monthly_budget" {
  description = "Budget of one month, in whole units of the currency."
  type        = number
}
