# One model's service. The gateway alone may call it; it may read its own model's artifacts and write logs.

resource "google_service_account" "backend" {
  project      = var.project
  account_id   = "model-${substr(var.model, 0, 24)}"
  display_name = "CHIPS backend ${var.model}"
}

resource "google_project_iam_member" "logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.backend.member
}

resource "google_storage_bucket_iam_member" "artifact" {
  bucket = var.artifact_bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.backend.member
  condition {
    title      = "only this model"
    expression = "resource.name.startsWith(\"projects/_/buckets/${var.artifact_bucket}/objects/${var.artifact_prefix}${var.model}/\")"
  }
}

resource "google_cloud_run_v2_service" "backend" {
  project             = var.project
  name                = "model-${var.model}"
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY"
  deletion_protection = var.deletion_protection

  template {
    service_account                  = google_service_account.backend.email
    timeout                          = "${var.request_timeout_s}s"
    max_instance_request_concurrency = var.concurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    containers {
      image = var.image

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = tostring(var.cpu)
          memory = var.memory
        }
        startup_cpu_boost = true
        cpu_idle          = var.cpu_idle
      }

      env {
        name  = "CHIPS_MODEL"
        value = var.model
      }
      env {
        name  = "CHIPS_VERSION"
        value = var.model_version
      }
      env {
        name  = "CHIPS_ARTIFACT"
        value = "gs://${var.artifact_bucket}/${var.artifact_prefix}${var.model}/${var.model_version}/"
      }
      env {
        name  = "CHIPS_CONCURRENCY"
        value = tostring(var.concurrency)
      }
      env {
        name  = "GOOGLE_CLOUD_PROJECT"
        value = var.project
      }

      # A model that is large or slow to load gets four minutes; R listens only when it is ready, so the port is enough.
      startup_probe {
        period_seconds    = 2
        timeout_seconds   = 2
        failure_threshold = 120
        http_get {
          path = "/v2/health/ready"
        }
      }

      liveness_probe {
        period_seconds    = 30
        timeout_seconds   = 10
        failure_threshold = 4
        http_get {
          path = "/v2/health/live"
        }
      }
    }
  }

  # New versions come as tagged revisions (`chips deploy`); traffic between them is the gateway's business.
  lifecycle {
    ignore_changes = [
      client,
      client_version,
      traffic,
      template[0].revision,
      template[0].containers[0].image,
      template[0].containers[0].env,
    ]
  }
}

resource "google_cloud_run_v2_service_iam_member" "gateway" {
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.backend.name
  role     = "roles/run.invoker"
  member   = var.gateway_member
}
