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
