mock_provider "google" {}

variables {
  project          = "my-project"
  region           = "europe-west1"
  service          = "chips-gateway"
  domains          = ["chips.example.com"]
  allowed_networks = [for number in range(25) : "198.51.100.${number}/32"]
}

run "cloud_armor_takes_ten_networks_a_rule" {
  command = plan
  assert {
    condition     = length(google_compute_security_policy.allowlist.rule) == 4
    error_message = "25 networks are three rules, and one denies the rest"
  }
  assert {
    condition     = [for rule in google_compute_security_policy.allowlist.rule : rule.action if rule.priority == 2147483647] == ["deny(403)"]
    error_message = "the last rule denies"
  }
}

run "nobody_is_let_through_by_an_empty_list" {
  command = plan
  variables {
    allowed_networks = []
  }
  assert {
    condition     = [for rule in google_compute_security_policy.allowlist.rule : rule.action] == ["deny(403)"]
    error_message = "an empty allowlist lets nobody through"
  }
}

run "a_certificate_needs_a_domain" {
  command = plan
  variables {
    domains = []
  }
  expect_failures = [var.domains]
}
