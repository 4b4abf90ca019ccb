variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "project_number" {
  description = "The project's number; budgets filter by it."
  type        = string
  validation {
    condition     = can(regex("^[0-9]+$", var.project_number))
    error_message = "A number: gcloud projects describe PROJECT --format='value(projectNumber)'."
  }
}

variable "billing_account" {
  description = "Billing account: XXXXXX-XXXXXX-XXXXXX."
  type        = string
  validation {
    condition     = can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "Written as 012345-6789AB-CDEF01."
  }
}

variable "monthly_amount" {
  description = "Budget of one month, in whole units of the currency."
  type        = number
  validation {
    condition     = var.monthly_amount >= 1 && floor(var.monthly_amount) == var.monthly_amount
    error_message = "A whole number, at least 1."
  }
}

variable "currency" {
  description = "Currency of the billing account."
  type        = string
  default     = "USD"
}

variable "thresholds" {
  description = "Shares of the budget at which somebody is told."
  type        = list(number)
  default     = [0.5, 0.9, 1.0]
}

variable "channels" {
  description = "Notification channels, at most five."
  type        = list(string)
  default     = []
  validation {
    condition     = length(var.channels) <= 5
    error_message = "A budget takes at most five channels."
  }
}
