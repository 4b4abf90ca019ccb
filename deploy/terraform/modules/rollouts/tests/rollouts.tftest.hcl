mock_provider "google" {}

variables {
  project           = "my-project"
  region            = "europe-west1"
  image             = "europe-west1-docker.pkg.dev/my-project/chips/gateway@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  registry_url      = "firestore://my-project/chips"
  registry_database = "chips"
  gateway_member    = "serviceAccount:gateway@my-project.iam.gserviceaccount.com"
}

run "a_gateway_may_write_its_figures_and_nothing_else" {
  command = plan
  assert {
    condition     = google_project_iam_member.gateway_figures.condition[0].expression == "resource.name == \"projects/my-project/databases/chips-figures\""
    error_message = "the grant must name the database of the figures"
  }
}

run "the_controller_writes_to_two_databases" {
  command = plan
  assert {
    condition = toset([for grant in google_project_iam_member.controller : grant.condition[0].expression]) == toset([
      "resource.name == \"projects/my-project/databases/chips\"",
      "resource.name == \"projects/my-project/databases/chips-figures\"",
    ])
    error_message = "the registry and the figures, and no other database"
  }
}

run "without_a_secret_there_is_no_volume" {
  command = plan
  assert {
    condition     = length(google_cloud_run_v2_service.controller.template[0].volumes) == 0
    error_message = "no secret, no volume"
  }
}

run "a_tag_is_no_digest" {
  command = plan
  variables {
    image = "gateway:latest"
  }
  expect_failures = [var.image]
}
