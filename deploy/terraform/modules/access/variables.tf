variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region of the image repository."
  type        = string
}

variable "database" {
  description = "The registry's Firestore database."
  type        = string
}

variable "artifact_bucket" {
  description = "Name of the artifact bucket."
  type        = string
}

variable "repository" {
  description = "Name of the image repository."
  type        = string
}

variable "heads_bucket" {
  description = "Name of the bucket that keeps signed heads of the history. Empty: there is none."
  type        = string
  default     = ""
}

variable "backend_accounts" {
  description = "Resource names of the backends' service accounts, by model."
  type        = map(string)
  default     = {}
}

variable "readers" {
  description = "IAM members who may see models, artifacts, images and services."
  type        = list(string)
  default     = []
}

variable "registrars" {
  description = "IAM members who may register models, publish artifacts and push images."
  type        = list(string)
  default     = []
}

variable "approvers" {
  description = "IAM members who may approve versions. None of them may register or deploy."
  type        = list(string)
  default     = []
  validation {
    condition     = length(setintersection(var.approvers, concat(var.registrars, var.operators))) == 0
    error_message = "Nobody approves what they register or deploy: an approver is neither a registrar nor an operator."
  }
}

variable "operators" {
  description = "IAM members who may deploy backends, and read logs and figures."
  type        = list(string)
  default     = []
}

variable "auditors" {
  description = "IAM members who may read the registry, its kept heads and the audit log."
  type        = list(string)
  default     = []
}
