"""deploy/terraform, checked by terraform itself, by rules of our own, and by mistakes planted to see each check fire."""

import re
from pathlib import Path

import pytest

from gateway.settings import load_settings
from tests.deploy.environments import each_environment

pytestmark = pytest.mark.timeout(300)

MODULES = sorted(path.parent.name for path in Path("deploy/terraform/modules").glob("*/tests"))


def rules():
    from tests.deploy.rules import RULES

    return RULES


def test_everything_is_formatted(checkout):
    ended = checkout.run(".", "fmt", "-check", "-recursive", "-diff")
    assert ended.code == 0, ended.output


@each_environment
def test_an_environment_plans_and_keeps_every_rule(checkout, environment: str):
    from tests.deploy.enums import wrong_words

    plan = checkout.plan(environment)
    broken = {rule.__name__: rule(plan) for rule in rules()}
    assert not {name: found for name, found in broken.items() if found}
    assert wrong_words(plan) == []
    services = {r.values["name"] for r in plan if r.type == "google_cloud_run_v2_service"}
    assert services == {"model-wine", "chips-gateway"}


def test_nothing_in_production_can_be_deleted_by_accident(checkout):
    from tests.deploy.rules import nothing_can_be_deleted_by_accident

    assert nothing_can_be_deleted_by_accident(checkout.plan("prod")) == []
    assert nothing_can_be_deleted_by_accident(checkout.plan("dev")) != []


def test_the_settings_that_terraform_gives_are_settings(checkout):
    """A setting that was renamed in the gateway and not here would stop the service at its next start."""
    service = next(
        r
        for r in checkout.plan("prod")
        if r.type == "google_cloud_run_v2_service" and ".gateway." in r.address
    )
    given = {
        variable["name"]: variable.get("value") or "firestore://project/chips"
        for variable in service.values["template"][0]["containers"][0]["env"]
    }
    settings = load_settings(environ=given)
    assert settings.edge.networks == ("192.0.2.0/24",)


def test_every_variable_is_described_and_typed():
    for path in Path("deploy/terraform").rglob("variables.tf"):
        for name, body in re.findall(r'variable "(\w+)" \{\n(.*?)\n\}', path.read_text(), re.DOTALL):
            assert "description = " in body, f"{path}: {name}"
            assert re.search(r"^\s+type\s+= ", body, re.MULTILINE), f"{path}: {name}"


@pytest.mark.parametrize("module", MODULES)
def test_a_modules_own_tests(checkout, module: str):
    checkout.init(f"modules/{module}")
    ended = checkout.run(f"modules/{module}", "test", "-no-color")
    assert ended.code == 0, ended.output
    assert "0 failed" in ended.output


# -- planted mistakes: each must be found by the check that is meant for it

INVALID = {
    "an argument that does not exist": (
        "modules/gateway/main.tf",
        "  deletion_protection = var",
        "  deletion_protectoin = var",
    ),
    "a type that does not fit": (
        "modules/gateway/main.tf",
        "failure_threshold = 30",
        'failure_threshold = "many"',
    ),
    "a variable that is not declared": ("modules/backend/main.tf", "var.cpu_idle", "var.cpu_ilde"),
    "a required argument that is missing": (
        "modules/registry/main.tf",
        "  location_id                       = var.location\n",
        "",
    ),
    "an output that does not exist": (
        "modules/environment/main.tf",
        "module.registry.url",
        "module.registry.address",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", INVALID)
def test_terraform_finds(checkout, mistake: str):
    checkout.replace(*INVALID[mistake])
    checkout.init("envs/dev")
    ended = checkout.run("envs/dev", "validate", "-no-color")
    assert ended.code != 0, mistake


REFUSED = {
    "an image by its tag": {"gateway_image": "europe-docker.pkg.dev/p/chips/gateway:latest"},
    "a network that is none": {"allowed_networks": ["everybody"]},
    "a project that cannot be one": {"project": "My Project"},
}


@pytest.mark.slow
@pytest.mark.parametrize("variable", REFUSED)
def test_a_variable_is_refused(checkout, variable: str):
    with pytest.raises(AssertionError, match="Invalid value for variable"):
        checkout.plan("dev", REFUSED[variable])


BROKEN = {
    "images_are_pinned_by_digest": (
        "modules/backend/main.tf",
        "image = var.image",
        'image = "backend:latest"',
    ),
    "every_service_has_its_own_account": (
        "modules/backend/main.tf",
        "service_account                  = google_service_account.backend.email",
        "service_account                  = null",
    ),
    "nobody_gets_a_primitive_role": ("modules/gateway/main.tf", "roles/cloudtrace.agent", "roles/editor"),
    "nothing_is_open_to_everybody": (
        "modules/gateway/main.tf",
        "count    = var.public ? 1 : 0",
        "count    = 1",
    ),
    "only_the_gateway_invokes_backends": (
        "modules/backend/main.tf",
        "member   = var.gateway_member",
        'member   = "user:eve@example.com"',
    ),
    "backends_do_not_listen_to_the_internet": (
        "modules/backend/main.tf",
        "INGRESS_TRAFFIC_INTERNAL_ONLY",
        "INGRESS_TRAFFIC_ALL",
    ),
    "the_gateway_has_the_least_it_needs": (
        "modules/gateway/main.tf",
        "roles/datastore.viewer",
        "roles/datastore.owner",
    ),
    "buckets_are_private_and_versioned": ("modules/artifacts/main.tf", '"enforced"', '"inherited"'),
    "the_registry_can_be_recovered": (
        "modules/registry/main.tf",
        "POINT_IN_TIME_RECOVERY_ENABLED",
        "POINT_IN_TIME_RECOVERY_DISABLED",
    ),
    "probes_ask_the_contracts_routes": ("modules/backend/main.tf", "/v2/health/ready", "/health"),
    "no_secret_stands_in_plain_text": (
        "modules/gateway/main.tf",
        "CHIPS_LOG__FORMAT ",
        'CHIPS_API_KEY = "x"\n      CHIPS_LOG__FORMAT ',
    ),
    "instances_are_bounded": (
        "modules/backend/main.tf",
        "max_instance_count = var.max_instances",
        "max_instance_count = null",
    ),
}


def test_every_rule_has_a_planted_mistake():
    assert {rule.__name__ for rule in rules()} == set(BROKEN)


@pytest.mark.slow
@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_fires(checkout, rule: str):
    checkout.replace(*BROKEN[rule])
    found = {check.__name__: check(checkout.plan("dev")) for check in rules() if check.__name__ == rule}
    assert found[rule], rule


WORDS = {
    "INGRESS_TRAFFIC_INTERNAL_ONLY": ("modules/backend/main.tf", "INGRESS_TRAFFIC_INTERNAL"),
    "EXECUTION_ENVIRONMENT_GEN2": ("modules/gateway/main.tf", "EXECUTION_ENVIRONMENT_SECOND"),
    "FIRESTORE_NATIVE": ("modules/registry/main.tf", "NATIVE"),
    "SUNDAY": ("modules/registry/main.tf", "SUN"),
    "DOCKER": ("modules/artifacts/main.tf", "OCI"),
}


@pytest.mark.slow
@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_google_does_not_know_is_found(checkout, word: str):
    from tests.deploy.enums import wrong_words

    path, wrong = WORDS[word]
    checkout.replace(path, f'"{word}"', f'"{wrong}"')
    assert any(wrong in found for found in wrong_words(checkout.plan("dev")))


# By grant: of which database, and what may be done with its documents. Whose grant it is, the module's own tests say.
RIGHTS_OF_ROLLOUTS = {
    'documents["controller"]': ("chips", {"create", "get", "list", "update"}),
    'documents["sweeper"]': ("chips-figures", {"delete", "get", "list"}),
    'documents["gateway"]': ("chips-figures", {"create", "delete", "get", "list", "update"}),
}


def rights_of_rollouts(plan) -> dict[str, tuple[str, set[str]]]:
    """What the module's grants in the project allow. A permission on anything but documents stands as it is, and so does a role of Google's."""
    own = [r for r in plan if ".module.rollouts[0]." in r.address]
    permissions = {
        f"projects/{r.values['project']}/roles/{r.values['role_id']}": {
            permission.removeprefix("datastore.entities.")
            for permission in r.values["permissions"]
            if permission != "datastore.databases.get"
        }
        for r in own
        if r.type == "google_project_iam_custom_role"
    }
    found = {}
    for grant in own:
        role = grant.values.get("role", "")
        if grant.type != "google_project_iam_member" or role == "roles/logging.logWriter":
            continue
        where = "".join(one["expression"] for one in grant.values.get("condition") or ())
        database = where.removesuffix('"').rpartition("/databases/")[2]
        name = grant.address.partition(".google_project_iam_member.")[2]
        found[name] = (database, permissions.get(role, {role}))
    return found


@each_environment
def test_with_rollouts_gateways_may_write_their_figures_and_nothing_else(checkout, environment: str):
    from tests.deploy.enums import wrong_words

    plan = checkout.plan(environment, {"rollouts": True})
    assert not {rule.__name__: found for rule in rules() if (found := rule(plan))}
    assert wrong_words(plan) == []
    services = {r.values["name"] for r in plan if r.type == "google_cloud_run_v2_service"}
    assert services == {"model-wine", "chips-gateway", "chips-rollouts"}
    assert rights_of_rollouts(plan) == RIGHTS_OF_ROLLOUTS
    project = next(r.values["project"] for r in plan if r.type == "google_firestore_database")
    given = {
        service.values["name"]: {
            variable["name"]: variable.get("value")
            for variable in service.values["template"][0]["containers"][0]["env"]
        }
        for service in plan
        if service.type == "google_cloud_run_v2_service"
    }
    url = f"firestore://{project}/chips-figures"
    assert given["chips-gateway"]["CHIPS_ROLLOUTS__FIGURES"] == url
    assert given["chips-gateway"]["CHIPS_ROLLOUTS__CONTROLLER"] == "false"
    assert given["chips-rollouts"]["CHIPS_ROLLOUTS__FIGURES"] == url
    settings = load_settings(
        environ={**given["chips-rollouts"], "CHIPS_REGISTRY": "firestore://project/chips"}
    )
    assert settings.rollouts.figures == url


ROLLOUTS = "modules/rollouts/main.tf"
TOO_MUCH_FOR_ROLLOUTS = {
    "a controller that erases": (
        'verbs       = ["create", "get", "list", "update"]',
        'verbs       = ["create", "delete", "get", "list", "update"]',
    ),
    "a controller that reports": (
        'verbs       = ["delete", "get", "list"]',
        'verbs       = ["create", "delete", "get", "list"]',
    ),
    "every database": ("databases/${var.database}", "databases/"),
    "a gateway that writes the registry": (
        'member      = var.gateway_member\n      place       = "figures"',
        'member      = var.gateway_member\n      place       = "registry"',
    ),
    "Google's own role": ('"projects/${var.project}/roles/${each.value.id}"', '"roles/datastore.user"'),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", TOO_MUCH_FOR_ROLLOUTS)
def test_more_rights_for_rollouts_are_found(checkout, mistake: str):
    checkout.replace(ROLLOUTS, *TOO_MUCH_FOR_ROLLOUTS[mistake])
    assert rights_of_rollouts(checkout.plan("dev", {"rollouts": True})) != RIGHTS_OF_ROLLOUTS
