"""The roles of people, in the plan of each environment: who approves cannot deploy, who registers cannot approve, nobody erases."""

import pytest

from tests.deploy.environments import each_environment

pytestmark = pytest.mark.timeout(300)

ROLES = ("reader", "registrar", "approver", "operator", "auditor", "publisher")
# Google's roles that may delete nothing of what the registry, the artifacts, the images and the heads hold.
ERASE_NOTHING = {
    "roles/artifactregistry.reader",
    "roles/artifactregistry.writer",
    "roles/datastore.viewer",
    "roles/iam.serviceAccountOpenIdTokenCreator",
    "roles/iam.serviceAccountUser",
    "roles/logging.privateLogViewer",
    "roles/logging.viewer",
    "roles/monitoring.viewer",
    "roles/run.developer",
    "roles/run.viewer",
    "roles/storage.legacyBucketReader",
    "roles/storage.objectCreator",
    "roles/storage.objectViewer",
}
# By which somebody could bring something into service, or act as an account that can.
DEPLOY = {
    "roles/artifactregistry.writer",
    "roles/iam.serviceAccountTokenCreator",
    "roles/iam.serviceAccountUser",
    "roles/run.developer",
}
TOKEN = "roles/iam.serviceAccountOpenIdTokenCreator"


def planned(checkout, environment: str):
    people = {f"{role}s": [f"user:{role}@example.com"] for role in ROLES if role != "publisher"}
    more = {"audit_bucket": "heads"}
    if environment == "prod":
        more["audit_project"] = "keepers"
    return checkout.plan(environment, {**people, "publishers": ["user:publisher@example.com"], **more})


def problems(plan) -> set[str]:
    """Everything that the roles of this plan allow and must not, or must allow and do not."""
    from tests.deploy.rules import grants_of

    project = next(r.values["project"] for r in plan if r.type == "google_firestore_database")
    own = f"projects/{project}/roles/chipsRegistrar"
    only = f'resource.name == "projects/{project}/databases/chips"'
    grants = {role: grants_of(plan, f"user:{role}@example.com") for role in ROLES}
    roles = {role: {grant.values["role"] for grant in found} for role, found in grants.items()}
    created = {
        role: {g.values["bucket"] for g in found if g.values["role"] == "roles/storage.objectCreator"}
        for role, found in grants.items()
    }
    writers = {
        (role, "".join(one["expression"] for one in grant.values.get("condition") or ()))
        for role, found in grants.items()
        for grant in found
        if grant.values["role"] == own
    }
    (custom,) = (
        r.values
        for r in plan
        if r.type == "google_project_iam_custom_role" and ".module.rollouts[" not in r.address
    )
    verbs = {permission.rpartition(".")[2] for permission in custom["permissions"]}
    wrong = {
        "a role erases": any(found - ERASE_NOTHING - {own} for found in roles.values())
        or not verbs <= {"create", "get", "list", "update"}
        or custom["role_id"] != "chipsRegistrar",
        "the registry is written by others, or more than the registry is written": writers
        != {("registrar", only), ("approver", only)},
        "an approver deploys": bool(roles["approver"] & DEPLOY) or created["approver"] != {"heads"},
        "others than approvers approve": [role for role in ROLES if TOKEN in roles[role]] != ["approver"],
        "who looks does more": any(
            created[role] or roles[role] & DEPLOY or TOKEN in roles[role] for role in ("reader", "auditor")
        ),
        "an operator cannot deploy": not {"roles/run.developer", "roles/iam.serviceAccountUser"}
        <= roles["operator"],
        "a registrar or a publisher cannot publish": not all(
            any("artifacts" in bucket for bucket in created[role]) for role in ("registrar", "publisher")
        ),
    }
    return {problem for problem, found in wrong.items() if found}


@each_environment
def test_roles_are_apart_and_nobody_erases(checkout, environment: str):
    from tests.deploy.enums import wrong_words
    from tests.deploy.rules import RULES

    plan = planned(checkout, environment)
    assert problems(plan) == set()
    assert not {rule.__name__: found for rule in RULES if (found := rule(plan))}
    assert wrong_words(plan) == []
    # The audit's second place: kept for two years, and where it counts nobody can take that away.
    (bucket,) = (
        r.values for r in plan if r.type == "google_storage_bucket" and ".module.audit[0]." in r.address
    )
    (policy,) = bucket["retention_policy"]
    assert int(policy["retention_period"]) == 730 * 86400
    assert policy["is_locked"] is (environment == "prod")
    assert (bucket["project"] == "keepers") is (environment == "prod")


@pytest.mark.parametrize("other", ["registrars", "operators"])
def test_nobody_approves_what_they_register_or_deploy(checkout, other: str):
    same = ["user:ana@example.com"]
    with pytest.raises(AssertionError, match="Nobody approves what they register or deploy"):
        checkout.plan("dev", {"approvers": same, other: same})


ACCESS, ARTIFACTS = "modules/access/main.tf", "modules/artifacts/main.tf"
TOO_MUCH = {
    "a permission to delete": (
        ACCESS,
        '"datastore.entities.update"',
        '"datastore.entities.delete"',
        "a role erases",
    ),
    "an auditor who replaces": (
        ACCESS,
        "roles/storage.legacyBucketReader",
        "roles/storage.objectUser",
        "a role erases",
    ),
    "a publisher who replaces": (
        ARTIFACTS,
        "roles/storage.objectCreator",
        "roles/storage.objectUser",
        "a role erases",
    ),
    "every database": (
        ACCESS,
        "databases/${var.database}",
        "databases/",
        "the registry is written by others, or more than the registry is written",
    ),
    "an approver who pushes images": (
        ACCESS,
        'approver  = ["roles/artifactregistry.reader"]',
        'approver  = ["roles/artifactregistry.writer"]',
        "an approver deploys",
    ),
    "a registrar's token that approves": (
        ACCESS,
        "toset(var.approvers)",
        "toset(concat(var.approvers, var.registrars))",
        "others than approvers approve",
    ),
    "a reader who deploys": (
        ACCESS,
        'reader    = ["roles/run.viewer"]',
        'reader    = ["roles/run.developer"]',
        "who looks does more",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", TOO_MUCH)
def test_a_planted_mistake_is_found(checkout, mistake: str):
    path, old, new, problem = TOO_MUCH[mistake]
    checkout.replace(path, old, new)
    assert problem in problems(planned(checkout, "dev"))
