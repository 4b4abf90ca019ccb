variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "bucket" {
  description = "Name of the artifact bucket; it is unique in the world."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 of a-z, 0-9, '.', '-' and '_'."
  }
}

variable "location" {
  description = "Bucket location; the region of the backends keeps cold starts short and transfers free."
  type        = string
}

variable "region" {
  description = "Region of the image repository."
  type        = string
}

variable "repository" {
  description = "Name of the image repository."
  type        = string
  default     = "chips"
}

variable "retention_days" {
  description = "Days in which no artifact can be deleted or replaced, by anybody. 0: no such rule."
  type        = number
  default     = 0
  validation {
    condition     = var.retention_days >= 0 && var.retention_days <= 3650
    error_message = "Use 0 to 3650 days."
  }
}

variable "publishers" {
  description = "IAM members who may publish artifacts."
  type        = list(string)
  default     = []
}
