variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region of the service and of its database."
  type        = string
}

variable "name" {
  description = "Name of the service and its account."
  type        = string
  default     = "chips-rollouts"
}

variable "image" {
  description = "Image of the gateway, pinned by digest: the controller is a command in it."
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Pin the image by digest (…@sha256:<64 hex digits>): a tag can be moved to other content."
  }
}

variable "registry_url" {
  description = "The registry: firestore://project/database."
  type        = string
}

variable "registry_database" {
  description = "The registry's database, which the controller may write to."
  type        = string
}

variable "database" {
  description = "The database that gateways report their figures to."
  type        = string
  default     = "chips-figures"
}

variable "gateway_member" {
  description = "The gateways' service account as an IAM member."
  type        = string
}

variable "webhook_secret" {
  description = "Secret that signs what webhooks get. Empty: webhooks get nothing."
  type        = string
  default     = ""
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the service and its database."
  type        = bool
  default     = true
}
