mock_provider "google" {}

variables {
  project         = "my-project"
  definitions     = "tests/definitions"
  gateway_service = "chips-gateway"
  alert_emails    = ["ops@example.com"]
}

run "files_become_dashboards_and_alerts" {
  command = plan
  assert {
    condition     = google_monitoring_alert_policy.chips["TooManyErrors"].severity == "CRITICAL"
    error_message = "each policy of the file is one resource"
  }
  assert {
    condition     = google_monitoring_alert_policy.chips["TooManyErrors"].conditions[0].condition_prometheus_query_language[0].duration == "120s"
    error_message = "conditions are taken over"
  }
}

run "no_uptime_check_without_a_host" {
  command = plan
  assert {
    condition     = length(google_monitoring_uptime_check_config.live) == 0
    error_message = "there is nothing to check from outside"
  }
}

run "a_host_is_no_url" {
  command = plan
  variables {
    uptime_host = "https://chips.example.com/"
  }
  expect_failures = [var.uptime_host]
}
