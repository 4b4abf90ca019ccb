"""What every plan must keep, in every change of deploy/terraform: each rule gives the addresses that break it."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.deploy.terraform import Resource

Rule = Callable[[Sequence[Resource]], list[str]]

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_EVERYBODY = {"allUsers", "allAuthenticatedUsers"}
_PRIMITIVE_ROLES = {"roles/owner", "roles/editor", "roles/viewer"}
_GATEWAY_ROLES = {
    "roles/datastore.viewer",
    "roles/cloudtrace.agent",
    "roles/monitoring.metricWriter",
    "roles/logging.logWriter",
}
SERVICE = "google_cloud_run_v2_service"


def _of(resources: Iterable[Resource], *types: str) -> list[Resource]:
    return [resource for resource in resources if resource.type in types]


def _iam(resources: Iterable[Resource]) -> list[Resource]:
    return [resource for resource in resources if resource.type.endswith(("_iam_member", "_iam_binding"))]


def images_are_pinned_by_digest(plan: Sequence[Resource]) -> list[str]:
    return [
        service.address
        for service in _of(plan, SERVICE)
        for container in service.values["template"][0]["containers"]
        if not _DIGEST.search(container["image"])
    ]


def every_service_has_its_own_account(plan: Sequence[Resource]) -> list[str]:
    """A service without one runs as the default account, which may edit the whole project."""
    services = _of(plan, SERVICE)
    accounts = {account.address.rpartition(".")[0] for account in _of(plan, "google_service_account")}
    modules = [service.address.rpartition(f".{SERVICE}")[0] for service in services]
    without = [
        s.address
        for s in services
        if "service_account" in s.values["template"][0] and not s.values["template"][0]["service_account"]
    ]
    return without + [module for module in modules if f"{module}.google_service_account" not in accounts]


def nobody_gets_a_primitive_role(plan: Sequence[Resource]) -> list[str]:
    return [grant.address for grant in _iam(plan) if grant.values["role"] in _PRIMITIVE_ROLES]


def nothing_is_open_to_everybody(plan: Sequence[Resource]) -> list[str]:
    return [grant.address for grant in _iam(plan) if grant.values.get("member") in _EVERYBODY]


def only_the_gateway_invokes_backends(plan: Sequence[Resource]) -> list[str]:
    grants = [
        grant
        for grant in _of(plan, f"{SERVICE}_iam_member")
        if ".module.backend[" in grant.address and grant.values["role"] == "roles/run.invoker"
    ]
    backends = [service for service in _of(plan, SERVICE) if ".module.backend[" in service.address]
    # The gateway's account is not known before it is made, so in a plan its member is absent; any text is a stranger.
    strangers = [grant.address for grant in grants if grant.values.get("member")]
    return strangers + (["backends without exactly one grant"] if len(grants) != len(backends) else [])


def backends_do_not_listen_to_the_internet(plan: Sequence[Resource]) -> list[str]:
    return [
        service.address
        for service in _of(plan, SERVICE)
        if ".module.backend[" in service.address
        and service.values["ingress"] != "INGRESS_TRAFFIC_INTERNAL_ONLY"
    ]


def the_gateway_has_the_least_it_needs(plan: Sequence[Resource]) -> list[str]:
    grants = [g for g in _of(plan, "google_project_iam_member") if ".module.gateway." in g.address]
    return [grant.address for grant in grants if grant.values["role"] not in _GATEWAY_ROLES]


def buckets_are_private_and_versioned(plan: Sequence[Resource]) -> list[str]:
    return [
        bucket.address
        for bucket in _of(plan, "google_storage_bucket")
        if bucket.values["public_access_prevention"] != "enforced"
        or not bucket.values["uniform_bucket_level_access"]
        or not bucket.values["versioning"][0]["enabled"]
        or bucket.values["force_destroy"]
    ]


def the_registry_can_be_recovered(plan: Sequence[Resource]) -> list[str]:
    databases = _of(plan, "google_firestore_database")
    broken = [
        database.address
        for database in databases
        if database.values["point_in_time_recovery_enablement"] != "POINT_IN_TIME_RECOVERY_ENABLED"
    ]
    return broken + ([] if _of(plan, "google_firestore_backup_schedule") else ["no backups"])


def probes_ask_the_contracts_routes(plan: Sequence[Resource]) -> list[str]:
    broken = []
    for service in _of(plan, SERVICE):
        wanted = (
            ("/-/ready", "/-/live")
            if ".module.gateway." in service.address
            else ("/v2/health/ready", "/v2/health/live")
        )
        for container in service.values["template"][0]["containers"]:
            asked = tuple(
                container[probe][0]["http_get"][0]["path"] if container.get(probe) else None
                for probe in ("startup_probe", "liveness_probe")
            )
            if asked != wanted:
                broken.append(service.address)
    return broken


def no_secret_stands_in_plain_text(plan: Sequence[Resource]) -> list[str]:
    suspicious = re.compile(r"(PASSWORD|SECRET|TOKEN|PRIVATE_KEY|API_KEY)$")
    return [
        f"{service.address}: {variable['name']}"
        for service in _of(plan, SERVICE)
        for container in service.values["template"][0]["containers"]
        for variable in container.get("env") or ()
        if suspicious.search(variable["name"]) and variable.get("value")
    ]


def instances_are_bounded(plan: Sequence[Resource]) -> list[str]:
    return [
        service.address
        for service in _of(plan, SERVICE)
        if not service.values["template"][0]["scaling"][0].get("max_instance_count")
    ]


RULES: tuple[Rule, ...] = (
    images_are_pinned_by_digest,
    every_service_has_its_own_account,
    nobody_gets_a_primitive_role,
    nothing_is_open_to_everybody,
    only_the_gateway_invokes_backends,
    backends_do_not_listen_to_the_internet,
    the_gateway_has_the_least_it_needs,
    buckets_are_private_and_versioned,
    the_registry_can_be_recovered,
    probes_ask_the_contracts_routes,
    no_secret_stands_in_plain_text,
    instances_are_bounded,
)


def nothing_can_be_deleted_by_accident(plan: Sequence[Resource]) -> list[str]:
    """For production."""
    kept: dict[str, Callable[[dict[str, Any]], bool]] = {
        SERVICE: lambda values: values["deletion_protection"] is True,
        "google_firestore_database": lambda values: (
            values["delete_protection_state"] == "DELETE_PROTECTION_ENABLED"
        ),
        "google_storage_bucket": lambda values: bool(values["retention_policy"]),
    }
    return [r.address for r in plan if r.type in kept and not kept[r.type](r.values)]


def grants_of(plan: Sequence[Resource], member: str) -> list[Resource]:
    """What a member may do by this plan, wherever it is granted."""
    return [grant for grant in _iam(plan) if grant.values.get("member") == member]
