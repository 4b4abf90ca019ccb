"""Compile a model's networks, CORS rules and quota into a form that is fast to apply.

That happens once per revision, so that a request pays little for it.
"""

from functools import lru_cache

from gateway.core.ip_network_set import NetworkSet, parse_network
from gateway.core.model import NetworksAndQuotas, Policy
from gateway.core.model_cors_policy import CorsPolicy
from gateway.core.principal import Principal
from gateway.core.quota import UNLIMITED, Quota
from gateway.core.token_and_certificate_rules import AccessRule


class CompiledPolicy:
    """A model's policy in a form that is ready for requests. Its networks, quota and CORS rules are parsed."""

    __slots__ = ("cors", "networks", "quota")

    def __init__(self, networks: NetworkSet | None, cors: CorsPolicy | None, quota: Quota) -> None:
        self.networks = networks  # where the model may be called from; None: wherever callers are admitted
        self.cors = cors
        self.quota = quota


def compile_policy(policy: Policy) -> CompiledPolicy:
    """Compile a model's policy for the data plane."""
    return CompiledPolicy(
        network_set(policy.networks),
        CorsPolicy({origin: rule.options() for origin, rule in policy.cors.items()}) if policy.cors else None,
        quota_from_limits(policy),
    )


@lru_cache(maxsize=1024)
def network_set(networks: tuple[str, ...]) -> NetworkSet | None:
    """The NetworkSet of `networks`; None for an empty list. Equal lists share one, from a cache."""
    return NetworkSet(map(parse_network, networks)) if networks else None


def principal_from_rule(entry: AccessRule, subject: str) -> Principal:
    """The principal of a caller, `subject`, who matched the access rule `entry`. Quotas count for each subject alone."""
    return Principal(
        id=f"{entry.name}:{subject}",
        label=subject,
        team=entry.team,
        models=entry.models,
        verbs=entry.verbs,
        networks=network_set(entry.networks),
        quota=quota_from_limits(entry),
    )


def quota_from_limits(limits: NetworksAndQuotas) -> Quota:
    """The quota that `limits` set.

    A policy's `max_in_flight` is not in it: the concurrency limit enforces that for the whole model.
    """
    quota = Quota(
        requests_per_s=limits.requests_per_s,
        burst=limits.burst,
        max_in_flight=None if isinstance(limits, Policy) else limits.max_in_flight,
        requests_per_day=limits.requests_per_day,
        requests_per_month=limits.requests_per_month,
    )
    return UNLIMITED if quota == UNLIMITED else quota
