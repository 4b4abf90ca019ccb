# Where models lie: a bucket whose objects cannot be lost by one mistake, and a repository for the images of backends.

resource "google_storage_bucket" "artifacts" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 7 * 86400
  }

  dynamic "retention_policy" {
    for_each = var.retention_days > 0 ? [var.retention_days] : []
    content {
      retention_period = retention_policy.value * 86400
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 30
      num_newer_versions         = 3
    }
  }
}

# A publisher creates and reads; a published version is never replaced or deleted.
resource "google_storage_bucket_iam_member" "publisher" {
  for_each = {
    for pair in setproduct(var.publishers, ["roles/storage.objectCreator", "roles/storage.objectViewer"]) : "${pair[0]} ${pair[1]}" => { member = pair[0], role = pair[1] }
  }
  bucket = google_storage_bucket.artifacts.name
  role   = each.value.role
  member = each.value.member
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = var.repository
  format        = "DOCKER"
  description   = "Images of the gateway and the backends."

  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"
    most_recent_versions {
      keep_count = 20
    }
  }

  cleanup_policies {
    id     = "delete-untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }
}
