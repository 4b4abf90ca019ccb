# Who may do what in one environment: reader, registrar, approver, operator, auditor (docs/how-to/permissions.md). No role
# here may erase anything: a registrar's permissions are listed one by one, and publishing only creates.

locals {
  registrar = "projects/${var.project}/roles/chipsRegistrar"

  members = {
    reader    = var.readers
    registrar = var.registrars
    approver  = var.approvers
    operator  = var.operators
    auditor   = var.auditors
  }

  # Firestore knows no permission for single documents: an approver writes approvals, so may write the registry. That an
  # approver registers nothing is up to the sign-off policy and the audit.
  registry = {
    reader    = ["roles/datastore.viewer"]
    registrar = [local.registrar]
    approver  = [local.registrar]
    operator  = ["roles/datastore.viewer"]
    auditor   = ["roles/datastore.viewer"]
  }

  artifacts = {
    reader    = ["roles/storage.objectViewer"]
    registrar = ["roles/storage.objectViewer", "roles/storage.objectCreator"]
    approver  = ["roles/storage.objectViewer"]
    operator  = ["roles/storage.objectViewer"]
    auditor   = ["roles/storage.objectViewer"]
  }

  images = {
    reader    = ["roles/artifactregistry.reader"]
    registrar = ["roles/artifactregistry.writer"]
    approver  = ["roles/artifactregistry.reader"]
    operator  = ["roles/artifactregistry.reader"]
    auditor   = ["roles/artifactregistry.reader"]
  }

  # Commands that change the registry keep its head in the second place.
  heads = {
    reader    = []
    registrar = ["roles/storage.objectViewer", "roles/storage.objectCreator"]
    approver  = ["roles/storage.objectViewer", "roles/storage.objectCreator"]
    operator  = []
    auditor   = ["roles/storage.objectViewer", "roles/storage.legacyBucketReader"]
  }

  services = {
    reader    = ["roles/run.viewer"]
    registrar = ["roles/run.viewer"]
    approver  = ["roles/run.viewer"]
    operator  = ["roles/run.developer", "roles/logging.viewer", "roles/monitoring.viewer"]
    auditor   = ["roles/run.viewer", "roles/logging.privateLogViewer"]
  }

  # By place: a grant for each member and role, under a key that does not depend on the order of lists.
  grants = {
    for place, roles in {
      registry  = local.registry
      artifacts = local.artifacts
      images    = local.images
      heads     = var.heads_bucket == "" ? {} : local.heads
      services  = local.services
      } : place => merge([
        for who, wanted in roles : {
          for pair in setproduct(local.members[who], wanted) :
          "${who} ${pair[0]} ${pair[1]}" => { member = pair[0], role = pair[1] }
        }
    ]...)
  }
}

resource "google_project_iam_custom_role" "registrar" {
  project     = var.project
  role_id     = "chipsRegistrar"
  title       = "CHIPS registrar"
  description = "Writes the registry, and erases nothing: deleted documents are only marked."
  permissions = [
    "datastore.databases.get",
    "datastore.entities.create",
    "datastore.entities.get",
    "datastore.entities.list",
    "datastore.entities.update",
  ]
}

resource "google_project_iam_member" "registry" {
  for_each   = local.grants.registry
  project    = var.project
  role       = each.value.role
  member     = each.value.member
  depends_on = [google_project_iam_custom_role.registrar]
  condition {
    title      = "only the registry"
    expression = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }
}

resource "google_storage_bucket_iam_member" "artifacts" {
  for_each = local.grants.artifacts
  bucket   = var.artifact_bucket
  role     = each.value.role
  member   = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "images" {
  for_each   = local.grants.images
  project    = var.project
  location   = var.region
  repository = var.repository
  role       = each.value.role
  member     = each.value.member
}

resource "google_storage_bucket_iam_member" "heads" {
  for_each = local.grants.heads
  bucket   = var.heads_bucket
  role     = each.value.role
  member   = each.value.member
}

resource "google_project_iam_member" "services" {
  for_each = local.grants.services
  project  = var.project
  role     = each.value.role
  member   = each.value.member
}

# Who deploys a backend lets it run as its account.
resource "google_service_account_iam_member" "backends" {
  for_each = {
    for pair in setproduct(var.operators, keys(var.backend_accounts)) : "${pair[0]} ${pair[1]}" => { member = pair[0], backend = pair[1] }
  }
  service_account_id = var.backend_accounts[each.value.backend]
  role               = "roles/iam.serviceAccountUser"
  member             = each.value.member
}

# Approvals by identity token: this account's token counts as a signature, and approvers alone may ask for one.
resource "google_service_account" "approver" {
  count        = length(var.approvers) > 0 ? 1 : 0
  project      = var.project
  account_id   = "chips-approver"
  display_name = "CHIPS approvals by identity token"
}

resource "google_service_account_iam_member" "approver" {
  for_each           = toset(var.approvers)
  service_account_id = google_service_account.approver[0].name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = each.value
}
