variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "database" {
  description = "Name of the Firestore database."
  type        = string
  default     = "chips"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database))
    error_message = "A database's name has 4 to 63 of a-z, 0-9 and -, and begins with a letter."
  }
}

variable "location" {
  description = "Firestore location: a region such as europe-west1, or a multi-region such as eur3."
  type        = string
}

variable "deletion_protection" {
  description = "Whether the database refuses to be deleted."
  type        = bool
  default     = true
}

variable "backup_retention_days" {
  description = "How long daily backups are kept."
  type        = number
  default     = 7
  validation {
    condition     = var.backup_retention_days >= 1 && var.backup_retention_days <= 98
    error_message = "Firestore keeps backups for 1 to 98 days."
  }
}
