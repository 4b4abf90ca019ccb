"""A model's policy, made ready for the data plane once per revision instead of once per request."""

from gateway.core.cors import Cors
from gateway.core.model import Key, Policy
from gateway.core.networks import NetworkSet, parse_network
from gateway.core.principal import UNLIMITED, Quota


class Rules:
    __slots__ = ("cors", "networks", "quota")

    def __init__(self, networks: NetworkSet | None, cors: Cors | None, quota: Quota) -> None:
        self.networks = networks  # where the model may be called from; None: wherever callers are admitted
        self.cors = cors
        self.quota = quota


def compile_rules(policy: Policy) -> Rules:
    return Rules(
        NetworkSet(map(parse_network, policy.networks)) if policy.networks else None,
        Cors({origin: rule.options() for origin, rule in policy.cors.items()}) if policy.cors else None,
        quota_of(policy),
    )


def quota_of(limits: Policy | Key) -> Quota:
    """What of `limits` is counted per request. How many are in flight at a model is the gate's business."""
    quota = Quota(
        requests_per_s=limits.requests_per_s,
        burst=limits.burst,
        max_in_flight=limits.max_in_flight if isinstance(limits, Key) else None,
        requests_per_day=limits.requests_per_day,
        requests_per_month=limits.requests_per_month,
    )
    return UNLIMITED if quota == UNLIMITED else quota
