# One whole environment: everything the ten steps of deploy/README.md make, from one set of variables.

module "registry" {
  source              = "../registry"
  project             = var.project
  location            = var.region
  database            = var.database
  deletion_protection = var.protected
}

module "audit" {
  source         = "../audit"
  count          = var.audit_bucket == "" ? 0 : 1
  project        = var.audit_project == "" ? var.project : var.audit_project
  bucket         = var.audit_bucket
  location       = var.region
  retention_days = var.audit_retention_days
  locked         = var.protected
  gateway_member = module.gateway.member
}

module "access" {
  source           = "../access"
  project          = var.project
  region           = var.region
  database         = var.database
  artifact_bucket  = module.artifacts.bucket
  repository       = module.artifacts.repository
  heads_bucket     = var.audit_bucket
  backend_accounts = { for name, backend in module.backend : name => backend.service_account_name }
  readers          = var.readers
  registrars       = var.registrars
  approvers        = var.approvers
  operators        = var.operators
  auditors         = var.auditors
  depends_on       = [module.audit]
}

module "artifacts" {
  source         = "../artifacts"
  project        = var.project
  bucket         = var.artifact_bucket
  location       = var.region
  region         = var.region
  retention_days = var.protected ? var.artifact_retention_days : 0
  publishers     = var.publishers
}

module "gateway" {
  source               = "../gateway"
  project              = var.project
  region               = var.region
  image                = var.gateway_image
  registry_url         = module.registry.url
  allowed_networks     = var.allowed_networks
  public               = var.public
  invokers             = var.invokers
  behind_load_balancer = length(var.domains) > 0
  trusted_hops         = length(var.domains) > 0 ? 2 : 1
  min_instances        = var.gateway_min_instances
  max_instances        = var.gateway_max_instances
  settings             = var.settings
  secrets              = var.secrets
  figures_url          = var.rollouts ? "firestore://${var.project}/${var.figures_database}" : ""
  deletion_protection  = var.protected
}

module "rollouts" {
  source              = "../rollouts"
  count               = var.rollouts ? 1 : 0
  project             = var.project
  region              = var.region
  image               = var.gateway_image
  registry_url        = module.registry.url
  registry_database   = var.database
  database            = var.figures_database
  gateway_member      = module.gateway.member
  webhook_secret      = var.rollout_webhook_secret
  deletion_protection = var.protected
}

module "backend" {
  source              = "../backend"
  for_each            = var.models
  project             = var.project
  region              = var.region
  model               = each.key
  model_version       = each.value.version
  image               = each.value.image
  concurrency         = each.value.concurrency
  memory              = each.value.memory
  cpu                 = each.value.cpu
  min_instances       = each.value.min_instances
  max_instances       = each.value.max_instances
  request_timeout_s   = each.value.request_timeout_s
  artifact_bucket     = module.artifacts.bucket
  gateway_member      = module.gateway.member
  deletion_protection = var.protected
}

module "edge" {
  source           = "../edge"
  count            = length(var.domains) > 0 ? 1 : 0
  project          = var.project
  region           = var.region
  service          = module.gateway.name
  domains          = var.domains
  allowed_networks = var.allowed_networks
}

module "monitoring" {
  source             = "../monitoring"
  project            = var.project
  definitions        = "${path.module}/../../../monitoring/cloud-monitoring"
  gateway_service    = module.gateway.name
  alert_emails       = var.alert_emails
  uptime_host        = length(var.domains) > 0 ? var.domains[0] : ""
  log_retention_days = var.log_retention_days
}

module "budget" {
  source          = "../budget"
  count           = var.billing_account == "" ? 0 : 1
  project         = var.project
  project_number  = var.project_number
  billing_account = var.billing_account
  monthly_amount  = var.monthly_budget
  currency        = var.currency
  channels        = slice(module.monitoring.channels, 0, min(5, length(module.monitoring.channels)))
}
