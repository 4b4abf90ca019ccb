# In front of the gateway, where a fixed address, an own domain and Cloud Armor are wanted: a global load balancer.

resource "google_compute_global_address" "edge" {
  project = var.project
  name    = var.name
}

resource "google_compute_managed_ssl_certificate" "edge" {
  project = var.project
  name    = var.name
  managed {
    domains = var.domains
  }
}

resource "google_compute_region_network_endpoint_group" "gateway" {
  project               = var.project
  name                  = var.name
  region                = var.region
  network_endpoint_type = "SERVERLESS"
  cloud_run {
    service = var.service
  }
}

# Cloud Armor drops strangers before they cost an instance; the gateway's own allowlist still holds behind it.
resource "google_compute_security_policy" "allowlist" {
  project = var.project
  name    = var.name
  type    = "CLOUD_ARMOR"

  dynamic "rule" {
    for_each = { for index, networks in chunklist(var.allowed_networks, 10) : index => networks }
    content {
      action      = "allow"
      priority    = 1000 + tonumber(rule.key)
      description = "allowlist, part ${tonumber(rule.key) + 1}"
      match {
        versioned_expr = "SRC_IPS_V1"
        config {
          src_ip_ranges = rule.value
        }
      }
    }
  }

  rule {
    action      = "deny(403)"
    priority    = 2147483647
    description = "everybody else"
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
  }
}

resource "google_compute_backend_service" "gateway" {
  project               = var.project
  name                  = var.name
  protocol              = "HTTPS"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  security_policy       = google_compute_security_policy.allowlist.id

  backend {
    group = google_compute_region_network_endpoint_group.gateway.id
  }

  log_config {
    enable      = true
    sample_rate = var.log_sample_rate
  }
}

resource "google_compute_url_map" "edge" {
  project         = var.project
  name            = var.name
  default_service = google_compute_backend_service.gateway.id
}

resource "google_compute_ssl_policy" "modern" {
  project         = var.project
  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_target_https_proxy" "edge" {
  project          = var.project
  name             = var.name
  url_map          = google_compute_url_map.edge.id
  ssl_certificates = [google_compute_managed_ssl_certificate.edge.id]
  ssl_policy       = google_compute_ssl_policy.modern.id
}

resource "google_compute_global_forwarding_rule" "edge" {
  project               = var.project
  name                  = var.name
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.edge.id
  port_range            = "443"
  target                = google_compute_target_https_proxy.edge.id
}
