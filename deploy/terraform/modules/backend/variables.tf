variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Cloud Run region."
  type        = string
}

variable "model" {
  description = "Name of the model, as callers write it."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,41}[a-z0-9])?$", var.model))
    error_message = "A model's name on Cloud Run has 1 to 43 of a-z, 0-9 and -, beginning and ending with a letter or digit."
  }
}

variable "model_version" {
  description = "Version that is served first."
  type        = string
}

variable "image" {
  description = "Image, pinned by digest."
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Pin the image by digest (…@sha256:<64 hex digits>): a tag can be moved to other content."
  }
}

variable "gateway_member" {
  description = "The gateway's service account as an IAM member; nobody else may call the backend."
  type        = string
  validation {
    condition     = startswith(var.gateway_member, "serviceAccount:")
    error_message = "Only a service account may call a backend: serviceAccount:<email>."
  }
}

variable "artifact_bucket" {
  description = "Bucket with the artifacts."
  type        = string
}

variable "artifact_prefix" {
  description = "Folder of the artifacts in the bucket, empty or ending in /."
  type        = string
  default     = ""
  validation {
    condition     = var.artifact_prefix == "" || endswith(var.artifact_prefix, "/")
    error_message = "The prefix ends in /."
  }
}

variable "concurrency" {
  description = "Predictions that one instance truly runs at once, as the backend declares: 1 for R, the threads for Python and Julia."
  type        = number
  default     = 1
  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000
    error_message = "Cloud Run takes 1 to 1000."
  }
}

variable "min_instances" {
  description = "Instances that are kept when nobody calls."
  type        = number
  default     = 0
}

variable "max_instances" {
  description = "Most instances: what the bill cannot exceed."
  type        = number
  default     = 4
}

variable "cpu" {
  description = "Processors of one instance."
  type        = number
  default     = 1
}

variable "cpu_idle" {
  description = "Whether the processor is throttled between requests, which is cheaper and right for a backend that only predicts."
  type        = bool
  default     = true
}

variable "memory" {
  description = "Memory of one instance; the fetched artifact counts, since the disk is memory."
  type        = string
  default     = "1Gi"
  validation {
    condition     = can(regex("^[0-9]+(Mi|Gi)$", var.memory))
    error_message = "Memory is written as 512Mi or 2Gi."
  }
}

variable "request_timeout_s" {
  description = "Longest prediction."
  type        = number
  default     = 60
  validation {
    condition     = var.request_timeout_s >= 1 && var.request_timeout_s <= 3600
    error_message = "Cloud Run takes 1 to 3600 seconds."
  }
}

variable "deletion_protection" {
  description = "Whether the service refuses to be deleted."
  type        = bool
  default     = true
}
