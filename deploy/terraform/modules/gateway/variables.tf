variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Cloud Run region."
  type        = string
}

variable "name" {
  description = "Name of the service, its account and its network."
  type        = string
  default     = "chips-gateway"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.name))
    error_message = "A name has 6 to 30 of a-z, 0-9 and -, and begins with a letter."
  }
}

variable "image" {
  description = "Image, pinned by digest: host/project/repository/image@sha256:…"
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Pin the image by digest (…@sha256:<64 hex digits>): a tag can be moved to other content."
  }
}

variable "registry_url" {
  description = "The registry: firestore://project/database."
  type        = string
  validation {
    condition     = startswith(var.registry_url, "firestore://")
    error_message = "In the cloud the registry is a Firestore database: firestore://project/database."
  }
}

variable "allowed_networks" {
  description = "Networks whose callers are admitted. Empty: only the machine itself."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for network in var.allowed_networks : can(cidrhost(network, 0))])
    error_message = "Each network is written as 192.0.2.0/24 or 2001:db8::/32."
  }
}

variable "trusted_hops" {
  description = "Proxies in front that append to X-Forwarded-For: 1 on Cloud Run, 2 behind a load balancer."
  type        = number
  default     = 1
  validation {
    condition     = var.trusted_hops >= 1 && var.trusted_hops <= 10
    error_message = "On Cloud Run there is at least one proxy in front."
  }
}

variable "public" {
  description = "Whether requests reach the gateway without Cloud Run's own authentication. The gateway's keys still hold."
  type        = bool
  default     = false
}

variable "invokers" {
  description = "IAM members who may call the gateway through Cloud Run's own authentication."
  type        = list(string)
  default     = []
  validation {
    condition     = !contains(var.invokers, "allUsers") && !contains(var.invokers, "allAuthenticatedUsers")
    error_message = "Use public = true to open the gateway: it must be said where it can be seen."
  }
}

variable "behind_load_balancer" {
  description = "Whether only the load balancer (module edge) may reach the service."
  type        = bool
  default     = false
}

variable "min_instances" {
  description = "Instances that are kept when nobody calls; each costs its idle price."
  type        = number
  default     = 0
}

variable "max_instances" {
  description = "Most instances: what the bill cannot exceed."
  type        = number
  default     = 10
  validation {
    condition     = var.max_instances >= 1
    error_message = "At least one instance must be allowed."
  }
}

variable "concurrency" {
  description = "Requests at once in one instance. The gateway waits rather than computes, so hundreds fit."
  type        = number
  default     = 250
  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000
    error_message = "Cloud Run takes 1 to 1000."
  }
}

variable "cpu" {
  description = "Processors of one instance; the gateway runs one worker for each."
  type        = number
  default     = 1
}

variable "memory" {
  description = "Memory of one instance."
  type        = string
  default     = "512Mi"
  validation {
    condition     = can(regex("^[0-9]+(Mi|Gi)$", var.memory))
    error_message = "Memory is written as 512Mi or 2Gi."
  }
}

variable "request_timeout_s" {
  description = "Longest request; at least the longest time-out of any model."
  type        = number
  default     = 300
  validation {
    condition     = var.request_timeout_s >= 1 && var.request_timeout_s <= 3600
    error_message = "Cloud Run takes 1 to 3600 seconds."
  }
}

variable "egress_range" {
  description = "Addresses of the subnet through which the gateway reaches backends: a /26 or larger."
  type        = string
  default     = "10.8.0.0/26"
  validation {
    condition     = can(cidrhost(var.egress_range, 0))
    error_message = "Written as 10.8.0.0/26."
  }
}

variable "settings" {
  description = "Further settings by their environment names (docs/reference/settings.md). No secrets: use `secrets`."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "CHIPS_")])
    error_message = "Settings are named CHIPS_GROUP__NAME."
  }
}

variable "secrets" {
  description = "Settings that Secret Manager holds, by their environment names."
  type        = map(object({ secret = string, version = optional(string, "latest") }))
  default     = {}
}

variable "deletion_protection" {
  description = "Whether the service refuses to be deleted."
  type        = bool
  default     = true
}

variable "figures_url" {
  description = "Where it reports while a rollout runs: firestore://project/database. Empty: nowhere it may write to."
  type        = string
  default     = ""
}
