variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region of the gateway's service."
  type        = string
}

variable "name" {
  description = "Name of the load balancer's parts."
  type        = string
  default     = "chips-edge"
}

variable "service" {
  description = "Name of the gateway's Cloud Run service."
  type        = string
}

variable "domains" {
  description = "Domains of the certificate; their A records point to the address in the outputs."
  type        = list(string)
  validation {
    condition     = length(var.domains) > 0
    error_message = "A managed certificate needs at least one domain."
  }
}

variable "allowed_networks" {
  description = "Networks that are let through. Empty: nobody."
  type        = list(string)
  validation {
    condition     = alltrue([for network in var.allowed_networks : can(cidrhost(network, 0))])
    error_message = "Each network is written as 192.0.2.0/24 or 2001:db8::/32."
  }
}

variable "log_sample_rate" {
  description = "Share of requests that the load balancer logs; the gateway logs all of them."
  type        = number
  default     = 0.1
  validation {
    condition     = var.log_sample_rate >= 0 && var.log_sample_rate <= 1
    error_message = "A share lies between 0 and 1."
  }
}
