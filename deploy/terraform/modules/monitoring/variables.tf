variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "definitions" {
  description = "Folder with dashboard.json and alerts.json, which are made from the gateway's metric table."
  type        = string
}

variable "gateway_service" {
  description = "Name of the gateway's Cloud Run service."
  type        = string
}

variable "alert_emails" {
  description = "Who is told."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "Each is an e-mail address."
  }
}

variable "uptime_host" {
  description = "Host whose /-/live is checked each minute from outside. Empty: no check."
  type        = string
  default     = ""
  validation {
    condition     = !strcontains(var.uptime_host, "/")
    error_message = "A host name, without https:// and path."
  }
}

variable "log_location" {
  description = "Location of the log bucket."
  type        = string
  default     = "global"
}

variable "log_retention_days" {
  description = "How long request logs are kept."
  type        = number
  default     = 90
  validation {
    condition     = var.log_retention_days >= 1 && var.log_retention_days <= 3650
    error_message = "Use 1 to 3650 days."
  }
}
