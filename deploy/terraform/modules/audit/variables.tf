variable "project" {
  description = "Google Cloud project; best one that the administrators of the registry do not own."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket; it is unique in the world."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 of a-z, 0-9, '.', '-' and '_'."
  }
}

variable "location" {
  description = "Bucket location."
  type        = string
}

variable "retention_days" {
  description = "Days for which a head is kept, whatever anybody does."
  type        = number
  default     = 730
  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 36500
    error_message = "Use 1 to 36500 days."
  }
}

variable "locked" {
  description = "Whether the retention policy is locked, which cannot be taken back."
  type        = bool
  default     = true
}

variable "gateway_member" {
  description = "The gateway's service account as an IAM member."
  type        = string
}
