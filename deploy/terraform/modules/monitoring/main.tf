# What tells somebody: a channel, an uptime check, alerts and dashboards from files, and logs kept longer than a month.

locals {
  alerts = { for policy in jsondecode(file("${var.definitions}/alerts.json")) : policy.displayName => policy }
}

resource "google_monitoring_notification_channel" "email" {
  for_each     = toset(var.alert_emails)
  project      = var.project
  display_name = each.value
  type         = "email"
  labels = {
    email_address = each.value
  }
}

resource "google_monitoring_dashboard" "chips" {
  project        = var.project
  dashboard_json = file("${var.definitions}/dashboard.json")
}

resource "google_monitoring_alert_policy" "chips" {
  for_each              = local.alerts
  project               = var.project
  display_name          = each.value.displayName
  combiner              = each.value.combiner
  severity              = try(each.value.severity, "WARNING")
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]

  documentation {
    content   = each.value.documentation.content
    mime_type = "text/markdown"
  }

  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.value.displayName
      condition_prometheus_query_language {
        query               = conditions.value.conditionPrometheusQueryLanguage.query
        duration            = try(conditions.value.conditionPrometheusQueryLanguage.duration, "0s")
        evaluation_interval = try(conditions.value.conditionPrometheusQueryLanguage.evaluationInterval, "30s")
      }
    }
  }
}

resource "google_monitoring_uptime_check_config" "live" {
  count        = var.uptime_host == "" ? 0 : 1
  project      = var.project
  display_name = "CHIPS gateway answers"
  period       = "60s"
  timeout      = "10s"

  http_check {
    path         = "/-/live"
    port         = 443
    use_ssl      = true
    validate_ssl = true
  }

  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project
      host       = var.uptime_host
    }
  }
}

resource "google_monitoring_alert_policy" "down" {
  count                 = var.uptime_host == "" ? 0 : 1
  project               = var.project
  display_name          = "CHIPS gateway does not answer"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = [for channel in google_monitoring_notification_channel.email : channel.id]

  documentation {
    content   = "The uptime check of /-/live has failed from two regions. Look at the service's revisions and logs first."
    mime_type = "text/markdown"
  }

  conditions {
    display_name = "uptime check failing"
    condition_threshold {
      filter          = "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\" AND resource.type=\"uptime_url\" AND metric.labels.check_id=\"${google_monitoring_uptime_check_config.live[0].uptime_check_id}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "60s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["resource.label.host"]
      }
    }
  }
}

# Every request is a log line; this bucket keeps them for as long as an auditor asks.
resource "google_logging_project_bucket_config" "requests" {
  project        = var.project
  location       = var.log_location
  bucket_id      = "chips-requests"
  retention_days = var.log_retention_days
  description    = "Request and registry logs of CHIPS"
}

resource "google_logging_project_sink" "requests" {
  project                = var.project
  name                   = "chips-requests"
  destination            = "logging.googleapis.com/${google_logging_project_bucket_config.requests.id}"
  filter                 = "resource.type=\"cloud_run_revision\" AND (resource.labels.service_name=\"${var.gateway_service}\" OR resource.labels.service_name=~\"^model-\")"
  unique_writer_identity = true
}
