# The audit's second place: signed heads of the registry's history. Under a locked retention policy nobody, its owner included,
# can delete or replace what is in it before its time is over (docs/how-to/audit.md).

resource "google_storage_bucket" "heads" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = true
  }

  # A lock is for good: the policy can be made longer afterwards, never shorter, and never taken away.
  retention_policy {
    retention_period = var.retention_days * 86400
    is_locked        = var.locked
  }
}

# Gateways keep the head where it has changed.
resource "google_storage_bucket_iam_member" "gateway" {
  for_each = toset(["roles/storage.objectCreator", "roles/storage.objectViewer"])
  bucket   = google_storage_bucket.heads.name
  role     = each.value
  member   = var.gateway_member
}
