mock_provider "google" {}

variables {
  project         = "my-project"
  region          = "europe-west1"
  model           = "wine"
  model_version   = "3"
  image           = "europe-west1-docker.pkg.dev/my-project/chips/backend-python@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  gateway_member  = "serviceAccount:chips-gateway@my-project.iam.gserviceaccount.com"
  artifact_bucket = "my-artifacts"
}

run "its_environment_is_the_contracts" {
  command = plan
  variables {
    concurrency = 4
  }
  assert {
    condition = { for variable in google_cloud_run_v2_service.backend.template[0].containers[0].env : variable.name => variable.value } == {
      CHIPS_MODEL          = "wine"
      CHIPS_VERSION        = "3"
      CHIPS_ARTIFACT       = "gs://my-artifacts/wine/3/"
      CHIPS_CONCURRENCY    = "4"
      GOOGLE_CLOUD_PROJECT = "my-project"
    }
    error_message = "a backend is told its model, version, artifact and concurrency"
  }
  assert {
    condition     = google_cloud_run_v2_service.backend.template[0].max_instance_request_concurrency == 4
    error_message = "Cloud Run sends as many requests as the backend declares, no more"
  }
}

run "only_the_gateway_may_call_it" {
  command = plan
  assert {
    condition     = google_cloud_run_v2_service_iam_member.gateway.member == var.gateway_member
    error_message = "the gateway's account is the one invoker"
  }
}

run "a_person_is_no_gateway" {
  command = plan
  variables {
    gateway_member = "user:ana@example.com"
  }
  expect_failures = [var.gateway_member]
}

run "a_name_that_cloud_run_does_not_take" {
  command = plan
  variables {
    model = "Wine_2"
  }
  expect_failures = [var.model]
}

run "memory_has_a_unit" {
  command = plan
  variables {
    memory = "2 gigabytes"
  }
  expect_failures = [var.memory]
}
