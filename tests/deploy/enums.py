"""Values that only certain words may have, compared with Google's own discovery documents.

The provider's schema does not know them, so `terraform validate` passes `ingress = "FOO"`.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from tests.deploy.terraform import Resource

# (resource type, path of the argument): (API, schema, property)
ENUMS: dict[tuple[str, str], tuple[str, str, str]] = {
    ("google_cloud_run_v2_service", "ingress"): ("run.v2", "GoogleCloudRunV2Service", "ingress"),
    ("google_cloud_run_v2_service", "template.execution_environment"): (
        "run.v2",
        "GoogleCloudRunV2RevisionTemplate",
        "executionEnvironment",
    ),
    ("google_cloud_run_v2_service", "template.vpc_access.egress"): (
        "run.v2",
        "GoogleCloudRunV2VpcAccess",
        "egress",
    ),
    ("google_firestore_database", "type"): ("firestore.v1", "GoogleFirestoreAdminV1Database", "type"),
    ("google_firestore_database", "concurrency_mode"): (
        "firestore.v1",
        "GoogleFirestoreAdminV1Database",
        "concurrencyMode",
    ),
    ("google_firestore_database", "point_in_time_recovery_enablement"): (
        "firestore.v1",
        "GoogleFirestoreAdminV1Database",
        "pointInTimeRecoveryEnablement",
    ),
    ("google_firestore_database", "delete_protection_state"): (
        "firestore.v1",
        "GoogleFirestoreAdminV1Database",
        "deleteProtectionState",
    ),
    ("google_firestore_backup_schedule", "weekly_recurrence.day"): (
        "firestore.v1",
        "GoogleFirestoreAdminV1WeeklyRecurrence",
        "day",
    ),
    ("google_artifact_registry_repository", "format"): ("artifactregistry.v1", "Repository", "format"),
    ("google_artifact_registry_repository", "cleanup_policies.action"): (
        "artifactregistry.v1",
        "CleanupPolicy",
        "action",
    ),
    ("google_artifact_registry_repository", "cleanup_policies.condition.tag_state"): (
        "artifactregistry.v1",
        "CleanupPolicyCondition",
        "tagState",
    ),
    ("google_monitoring_alert_policy", "combiner"): ("monitoring.v3", "AlertPolicy", "combiner"),
    ("google_monitoring_alert_policy", "severity"): ("monitoring.v3", "AlertPolicy", "severity"),
    ("google_monitoring_alert_policy", "conditions.condition_threshold.comparison"): (
        "monitoring.v3",
        "MetricThreshold",
        "comparison",
    ),
    ("google_monitoring_alert_policy", "conditions.condition_threshold.aggregations.per_series_aligner"): (
        "monitoring.v3",
        "Aggregation",
        "perSeriesAligner",
    ),
    ("google_monitoring_alert_policy", "conditions.condition_threshold.aggregations.cross_series_reducer"): (
        "monitoring.v3",
        "Aggregation",
        "crossSeriesReducer",
    ),
    ("google_billing_budget", "threshold_rules.spend_basis"): (
        "billingbudgets.v1",
        "GoogleCloudBillingBudgetsV1ThresholdRule",
        "spendBasis",
    ),
    ("google_compute_region_network_endpoint_group", "network_endpoint_type"): (
        "compute.v1",
        "NetworkEndpointGroup",
        "networkEndpointType",
    ),
    ("google_compute_security_policy", "type"): ("compute.v1", "SecurityPolicy", "type"),
    ("google_compute_backend_service", "protocol"): ("compute.v1", "BackendService", "protocol"),
    ("google_compute_backend_service", "load_balancing_scheme"): (
        "compute.v1",
        "BackendService",
        "loadBalancingScheme",
    ),
    ("google_compute_global_forwarding_rule", "load_balancing_scheme"): (
        "compute.v1",
        "ForwardingRule",
        "loadBalancingScheme",
    ),
    ("google_compute_ssl_policy", "profile"): ("compute.v1", "SslPolicy", "profile"),
    ("google_compute_ssl_policy", "min_tls_version"): ("compute.v1", "SslPolicy", "minTlsVersion"),
}


@cache
def _schemas(api: str) -> dict[str, Any]:
    path = files("googleapiclient") / "discovery_cache" / "documents" / f"{api}.json"
    schemas: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["schemas"]
    return schemas


def allowed(api: str, schema: str, name: str) -> set[str]:
    return set(_schemas(api)[schema]["properties"][name]["enum"])


def wrong_words(plan: Sequence[Resource]) -> list[str]:
    """Every value in `plan` that Google's API does not know."""
    wrong = []
    for resource in plan:
        for (kind, path), where in ENUMS.items():
            if kind == resource.type:
                words = allowed(*where)
                wrong += [
                    f"{resource.address}: {path} = {value!r}, known are {sorted(words)}"
                    for value in _at(resource.values, path.split("."))
                    if value not in words
                ]
    return wrong


def _at(values: Any, path: Sequence[str]) -> Iterator[str]:
    if isinstance(values, list):
        for value in values:
            yield from _at(value, path)
    elif not path:
        if values:
            yield values
    elif isinstance(values, dict):
        yield from _at(values.get(path[0]), path[1:])
