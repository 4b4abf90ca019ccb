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
  command = apply
  assert {
    condition     = google_project_iam_member.documents["gateway"].condition[0].expression == "resource.name == \"projects/my-project/databases/chips-figures\""
    error_message = "the grant must name the database of the figures"
  }
  assert {
    condition     = [for name, grant in google_project_iam_member.documents : name if grant.member == var.gateway_member] == ["gateway"]
    error_message = "one grant, and no other"
  }
}

run "the_controller_writes_the_registry_and_erases_figures_alone" {
  command = plan
  assert {
    condition     = google_project_iam_member.documents["controller"].condition[0].expression == "resource.name == \"projects/my-project/databases/chips\""
    error_message = "the grant must name the registry's database"
  }
  assert {
    condition     = !contains(google_project_iam_custom_role.documents["controller"].permissions, "datastore.entities.delete")
    error_message = "nothing in the registry is erased"
  }
  assert {
    condition     = google_project_iam_member.documents["sweeper"].condition[0].expression == "resource.name == \"projects/my-project/databases/chips-figures\""
    error_message = "the grant must name the database of the figures"
  }
  assert {
    condition     = length(setintersection(google_project_iam_custom_role.documents["sweeper"].permissions, ["datastore.entities.create", "datastore.entities.update"])) == 0
    error_message = "a controller reports no figures"
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
