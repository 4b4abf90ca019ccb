"""The gauges and counters of the gateway's components.

The components keep them themselves; they are read each time the metrics are asked for.
"""

from collections import Counter
from collections.abc import Callable

from gateway.auth.authenticator_chain import AuthenticatorChain
from gateway.registry.lookup_quota_per_client_ip import ClientLookupQuota
from gateway.registry.mirror import FALLBACK, Mirror
from gateway.server.open_connections import OpenConnections
from gateway.stages.adaptive_backend_concurrency import AdaptiveBackendConcurrency
from gateway.stages.authorize import Authorize
from gateway.stages.concurrency_limit import ConcurrencyLimit
from gateway.stages.gateway_ip_allowlist import GatewayIpAllowlist
from gateway.stages.rate_limit import RateLimit
from gateway.telemetry.metrics import Reading


class ComponentMetrics:
    """The gauges and counters of the gateway's components.

    They are for `RequestMetrics.add_readers`: by metric name, then by the value of its one label.
    """

    def __init__(
        self,
        *,
        mirror: Mirror,
        chain: AuthenticatorChain,
        address_quota: ClientLookupQuota,
        gateway_ip_allowlist: GatewayIpAllowlist,
        authorize: Authorize,
        rate_limit: RateLimit,
        concurrency_limit: ConcurrencyLimit,
        adaptive_backend_concurrency: AdaptiveBackendConcurrency,
        connections: Callable[[], OpenConnections],
    ) -> None:
        self._mirror = mirror
        self._chain = chain
        self._address_quota = address_quota
        self._gateway_ip_allowlist = gateway_ip_allowlist
        self._authorize = authorize
        self._rate_limit = rate_limit
        self._concurrency_limit = concurrency_limit
        self._adaptive_backend_concurrency = adaptive_backend_concurrency
        self._connections = connections

    def counters(self) -> Reading:
        counts = {
            "allowlist": self._gateway_ip_allowlist.refused,
            "key-networks": self._chain.refused,
            "model-networks": self._authorize.refused,
            "unknown-credentials": self._address_quota.refused,
            "limits": self._rate_limit.refused,
            "in-flight": self._concurrency_limit.refused,
        }
        return {
            "chips_edge_refusals_total": {by: float(count) for by, count in counts.items()},
            "chips_backend_refusals_total": self._adaptive_backend_concurrency.refusals_by_backend(),
            "chips_connections_turned_away_total": {
                reason: float(count) for reason, count in self._connections().turned_away.items()
            },
        }

    def gauges(self) -> Reading:
        snapshot = self._mirror.snapshot
        gauges = {
            "chips_in_flight_requests": self._concurrency_limit.in_flight,
            "chips_connections": float(len(self._connections())),
            "chips_registry_age_seconds": self._mirror.age_s,
            "chips_registry_connected": float(self._mirror.connected),
            "chips_registry_fallback": float(self._mirror.source == FALLBACK),
            "chips_registry_held": float(bool(self._mirror.held)),
        }
        if snapshot is not None:
            gauges["chips_registry_generation"] = snapshot.generation
            gauges["chips_registry_models"] = len(snapshot.entries)
            gauges["chips_registry_problems"] = len(snapshot.problems)
            gauges["chips_emergencies"] = len(snapshot.emergencies)
        readings = {name: {"": float(value)} for name, value in gauges.items()}
        waiting = self._adaptive_backend_concurrency.waiting_by_backend()
        readings["chips_model_in_flight_requests"] = {
            name: count - waiting.get(name, 0.0)
            for name, count in self._concurrency_limit.in_flight_by_model().items()
        }
        rollouts = {} if snapshot is None else snapshot.rollouts
        readings["chips_rollout_percent"] = {
            name: float(rollout.percent) for name, rollout in rollouts.items() if rollout.active
        }
        for state in ("held", "returned"):
            readings[f"chips_rollout_{state}"] = {
                name: float(rollout.state == state) for name, rollout in rollouts.items()
            }
        policies = {} if snapshot is None else {n: e.model.policy for n, e in snapshot.entries.items()}
        queued = Counter(self._concurrency_limit.queued_by_model())
        queued.update({name: count for name, count in waiting.items() if count})
        readings["chips_model_queued_requests"] = dict(queued)
        readings["chips_model_window_requests"] = self._adaptive_backend_concurrency.window_sizes_by_backend()
        readings["chips_objective_availability_ratio"] = {
            name: policy.availability for name, policy in policies.items() if policy.availability is not None
        }
        readings["chips_objective_latency_seconds"] = {
            name: policy.latency_s for name, policy in policies.items() if policy.latency_s is not None
        }
        return readings
