mock_provider "google" {}

variables {
  project      = "my-project"
  region       = "europe-west1"
  image        = "europe-west1-docker.pkg.dev/my-project/chips/gateway@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  registry_url = "firestore://my-project/chips"
}

run "closed_by_default" {
  command = plan
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.public) == 0
    error_message = "nobody may invoke a gateway that was not made public"
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway.deletion_protection
    error_message = "a gateway is protected unless it says otherwise"
  }
}

run "public_when_it_says_so" {
  command = plan
  variables {
    public = true
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.public[0].member == "allUsers"
    error_message = "public = true opens the gateway"
  }
}

run "behind_a_load_balancer_nobody_gets_around_it" {
  command = plan
  variables {
    behind_load_balancer = true
  }
  assert {
    condition     = google_cloud_run_v2_service.gateway.ingress == "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    error_message = "the service must be reached through the load balancer alone"
  }
}

run "a_tag_is_no_digest" {
  command = plan
  variables {
    image = "gateway:latest"
  }
  expect_failures = [var.image]
}

run "everybody_is_not_an_invoker" {
  command = plan
  variables {
    invokers = ["allUsers"]
  }
  expect_failures = [var.invokers]
}

run "a_registry_on_disk_does_not_outlive_an_instance" {
  command = plan
  variables {
    registry_url = "sqlite:///tmp/registry.db"
  }
  expect_failures = [var.registry_url]
}

run "a_setting_is_named_like_one" {
  command = plan
  variables {
    settings = { LOG_LEVEL = "debug" }
  }
  expect_failures = [var.settings]
}

run "secrets_come_from_secret_manager" {
  command = plan
  variables {
    secrets = { CHIPS_LIMITS__REDIS = { secret = "redis-url" } }
  }
  assert {
    condition     = google_secret_manager_secret_iam_member.gateway["CHIPS_LIMITS__REDIS"].role == "roles/secretmanager.secretAccessor"
    error_message = "the gateway may read the secrets it is given, and only those"
  }
}
