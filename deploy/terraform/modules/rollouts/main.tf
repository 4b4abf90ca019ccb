# The controller of rollouts: a small Cloud Run service with an account of its own. It alone may write to the registry; gateways
# may write nothing but their figures, which lie in a database of their own.

locals {
  only = {
    registry = "resource.name == \"projects/${var.project}/databases/${var.registry_database}\""
    figures  = "resource.name == \"projects/${var.project}/databases/${var.database}\""
  }

  # What each may do with documents, and where: nobody may change a database, and the controller erases figures alone.
  roles = {
    controller = {
      id          = "chipsRolloutController"
      title       = "CHIPS rollout controller"
      description = "Takes the steps of rollouts in the registry, and erases nothing there."
      verbs       = ["create", "get", "list", "update"]
      member      = google_service_account.controller.member
      place       = "registry"
    }
    sweeper = {
      id          = "chipsFiguresSweeper"
      title       = "CHIPS figures, to read and to clear away"
      description = "Reads what gateways report of rollouts, and deletes what is left of those that are gone."
      verbs       = ["delete", "get", "list"]
      member      = google_service_account.controller.member
      place       = "figures"
    }
    gateway = {
      id          = "chipsFiguresReporter"
      title       = "CHIPS figures, to report"
      description = "Reports figures of rollouts and shadows, shows them, and deletes its own."
      verbs       = ["create", "delete", "get", "list", "update"]
      member      = var.gateway_member
      place       = "figures"
    }
  }
  figures_url = "firestore://${var.project}/${var.database}"
}

resource "google_firestore_database" "figures" {
  project                           = var.project
  name                              = var.database
  location_id                       = var.region
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.deletion_protection ? "ABANDON" : "DELETE"
}

resource "google_service_account" "controller" {
  project      = var.project
  account_id   = var.name
  display_name = "CHIPS rollout controller"
}

resource "google_project_iam_custom_role" "documents" {
  for_each    = local.roles
  project     = var.project
  role_id     = each.value.id
  title       = each.value.title
  description = each.value.description
  permissions = concat(["datastore.databases.get"], [for verb in each.value.verbs : "datastore.entities.${verb}"])
}

resource "google_project_iam_member" "documents" {
  for_each   = local.roles
  project    = var.project
  role       = "projects/${var.project}/roles/${each.value.id}"
  member     = each.value.member
  depends_on = [google_project_iam_custom_role.documents]
  condition {
    title      = "only the ${each.value.place}"
    expression = local.only[each.value.place]
  }
}

resource "google_project_iam_member" "controller_log" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.controller.member
}

resource "google_secret_manager_secret_iam_member" "webhook" {
  count     = var.webhook_secret == "" ? 0 : 1
  project   = var.project
  secret_id = var.webhook_secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.controller.member
}

resource "google_cloud_run_v2_service" "controller" {
  project             = var.project
  name                = var.name
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY"
  deletion_protection = var.deletion_protection

  template {
    service_account       = google_service_account.controller.email
    execution_environment = "EXECUTION_ENVIRONMENT_GEN2"

    # One acts, by a lease; during a new revision's start there are two.
    scaling {
      min_instance_count = 1
      max_instance_count = 1
    }

    containers {
      image   = var.image
      command = ["python", "-m", "gateway.cli"]
      args    = ["rollouts", "run", "--port", "8080"]

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = "1"
          memory = "512Mi"
        }
        # It works between requests, of which there are none but probes.
        cpu_idle = false
      }

      env {
        name  = "CHIPS_REGISTRY"
        value = var.registry_url
      }
      env {
        name  = "CHIPS_ROLLOUTS__FIGURES"
        value = local.figures_url
      }
      env {
        name  = "CHIPS_LOG__FORMAT"
        value = "json"
      }
      env {
        name  = "GOOGLE_CLOUD_PROJECT"
        value = var.project
      }

      dynamic "env" {
        for_each = var.webhook_secret == "" ? [] : ["/secrets/webhook/key"]
        content {
          name  = "CHIPS_ROLLOUTS__WEBHOOK_SECRET_FILE"
          value = env.value
        }
      }

      dynamic "volume_mounts" {
        for_each = var.webhook_secret == "" ? [] : ["/secrets/webhook"]
        content {
          name       = "webhook"
          mount_path = volume_mounts.value
        }
      }

      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 30
        http_get {
          path = "/v2/health/ready"
        }
      }

      liveness_probe {
        period_seconds    = 10
        timeout_seconds   = 3
        failure_threshold = 3
        http_get {
          path = "/v2/health/live"
        }
      }
    }

    dynamic "volumes" {
      for_each = var.webhook_secret == "" ? [] : [var.webhook_secret]
      content {
        name = "webhook"
        secret {
          secret = volumes.value
          items {
            path    = "key"
            version = "latest"
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version]
  }
}
