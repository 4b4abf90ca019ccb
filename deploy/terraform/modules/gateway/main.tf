# The gateway: one Cloud Run service with an account of its own, a way to backends through the VPC, and nothing else.

locals {
  environment = merge(
    {
      CHIPS_REGISTRY             = var.registry_url
      CHIPS_EDGE__NETWORKS       = join(",", var.allowed_networks)
      CHIPS_EDGE__TRUSTED_HOPS   = tostring(var.trusted_hops)
      CHIPS_SERVER__STOP_GRACE_S = "8"
      CHIPS_LOG__FORMAT          = "json"
      CHIPS_METRICS__EXPORTER    = "cloud-monitoring"
      GOOGLE_CLOUD_PROJECT       = var.project
      # The gateway may not write to the registry: `chips rollouts run` takes the steps of rollouts.
      CHIPS_ROLLOUTS__CONTROLLER = "false"
    },
    var.figures_url == "" ? {} : { CHIPS_ROLLOUTS__FIGURES = var.figures_url },
    var.settings,
  )
  roles = toset([
    "roles/datastore.viewer", # the registry, read and watched
    "roles/cloudtrace.agent",
    "roles/monitoring.metricWriter",
    "roles/logging.logWriter",
  ])
}

resource "google_service_account" "gateway" {
  project      = var.project
  account_id   = var.name
  display_name = "CHIPS gateway"
}

resource "google_project_iam_member" "gateway" {
  for_each = local.roles
  project  = var.project
  role     = each.value
  member   = google_service_account.gateway.member
}

resource "google_secret_manager_secret_iam_member" "gateway" {
  for_each  = var.secrets
  project   = var.project
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.gateway.member
}

resource "google_compute_network" "egress" {
  project                 = var.project
  name                    = var.name
  auto_create_subnetworks = false
}

# With private access to Google, a call to a backend's run.app address stays inside, so backends can refuse the internet.
resource "google_compute_subnetwork" "egress" {
  project                  = var.project
  name                     = var.name
  region                   = var.region
  network                  = google_compute_network.egress.id
  ip_cidr_range            = var.egress_range
  private_ip_google_access = true
}

resource "google_cloud_run_v2_service" "gateway" {
  project             = var.project
  name                = var.name
  location            = var.region
  ingress             = var.behind_load_balancer ? "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" : "INGRESS_TRAFFIC_ALL"
  deletion_protection = var.deletion_protection

  template {
    service_account                  = google_service_account.gateway.email
    timeout                          = "${var.request_timeout_s}s"
    max_instance_request_concurrency = var.concurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    vpc_access {
      egress = "ALL_TRAFFIC"
      network_interfaces {
        network    = google_compute_network.egress.id
        subnetwork = google_compute_subnetwork.egress.id
      }
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
        # The registry is watched between requests too, which needs a processor.
        cpu_idle = false
      }

      dynamic "env" {
        for_each = local.environment
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = var.secrets
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value.secret
              version = env.value.version
            }
          }
        }
      }

      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 30
        http_get {
          path = "/-/ready"
        }
      }

      liveness_probe {
        period_seconds    = 10
        timeout_seconds   = 3
        failure_threshold = 3
        http_get {
          path = "/-/live"
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [client, client_version]
  }
}

# The gateway authenticates callers itself. `public` opens it to requests that Cloud Run has not authenticated before.
resource "google_cloud_run_v2_service_iam_member" "public" {
  count    = var.public ? 1 : 0
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.gateway.name
  role     = "roles/run.invoker"
  member   = "allUsers"
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = toset(var.invokers)
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.gateway.name
  role     = "roles/run.invoker"
  member   = each.value
}
