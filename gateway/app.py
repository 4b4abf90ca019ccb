"""The composition root: make, start and stop a whole gateway.

It is made from its settings. `gateway/component_factories.py` makes single parts of it; nothing else does.

Objects are made from the bottom up and started in that order; what was started last is stopped first.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from gateway.auth.api_key import ApiKeyAuthenticator
from gateway.auth.api_key_last_used import LastUsedRecorder
from gateway.auth.authenticator_chain import AuthenticatorChain
from gateway.component_factories import (
    build_anchoring,
    build_authenticators,
    build_caller_connections,
    build_caller_token_signer,
    build_controller,
    build_egress_policy,
    build_figures_store,
    build_health_and_openapi_cors,
    build_id_tokens,
    build_mirror,
    build_server,
    build_shadow_upstream,
    build_telemetry,
    build_upstream,
    build_usage_reporter,
    local_process_identity,
    parse_networks,
)
from gateway.component_metrics import ComponentMetrics
from gateway.control.routes import ControlRoutes
from gateway.core.client_address import TrustedProxies
from gateway.cost.track_budgets import BudgetKeeper
from gateway.limits.redis_limiter import RedisLimiter
from gateway.pipeline import Pipeline
from gateway.registry.base import Registry
from gateway.registry.lookup_quota_per_client_ip import ClientLookupQuota
from gateway.registry.open_by_url import open_registry
from gateway.registry.snapshot import Snapshot
from gateway.rollout.controller import RolloutController
from gateway.rollout.lease import LEASE, LeaseObserver
from gateway.rollout.request_count_reporter import RolloutReporter
from gateway.server.listener import Listener, listen
from gateway.settings import Settings
from gateway.shadow.run_shadows import ShadowRunner
from gateway.shadow.status_summary import ModelShadowStatusReader
from gateway.stages.adaptive_backend_concurrency import AdaptiveBackendConcurrency, is_autoscaled
from gateway.stages.authenticate import Authenticate
from gateway.stages.authorize import Authorize
from gateway.stages.budget_limit import BudgetLimit
from gateway.stages.buffer_start_of_body import BufferStartOfBody
from gateway.stages.concurrency_limit import ConcurrencyLimit
from gateway.stages.cors import Cors
from gateway.stages.forward import Forward
from gateway.stages.gateway_ip_allowlist import GatewayIpAllowlist
from gateway.stages.pinned_or_sticky_override import PinnedOrStickyOverride
from gateway.stages.rate_limit import RateLimit
from gateway.stages.read_request_context import ReadRequestContext
from gateway.stages.route_to_backend import RouteToBackend
from gateway.stages.trace_sampling import TraceSampling
from gateway.telemetry.logs import LogWriter
from gateway.upstream.pooled_client import PooledUpstream
from gateway.usage_from_metrics import usage_from_metrics

_log = logging.getLogger(__name__)
_BLOCKING = 16  # calls at once that block: the console's reads, name look-ups, stops
_CANCEL_S = 0.2  # after the drain: how long a request that is cancelled may take to end


class Gateway:
    """A whole gateway, which can be started and stopped.

    After `start`, `address` says where it listens; `stop` drains it. `folder` is what the workers on one port share;
    who has none is alone. A `registry` given here is used instead of the one the settings name; the code that passes it
    in closes it.
    """

    def __init__(
        self,
        settings: Settings,
        logs: LogWriter,
        *,
        registry: Registry | None = None,
        folder: Path | None = None,
    ) -> None:
        self._settings = settings
        self.supervisor = logs.supervisor
        self._shares_port = folder is not None
        self._stack = AsyncExitStack()
        self._own_registry = registry is None
        self.registry = registry or open_registry(settings.registry)
        self.mirror = build_mirror(settings, self.registry, self.supervisor)
        self._make_authentication()
        self._make_upstream()
        self._make_limits()
        self._make_telemetry(logs, folder)
        self._figures = build_figures_store(settings, self.registry)
        self._make_cost()
        self._make_pipeline()
        self._make_rollouts()
        self._make_shadows()
        self.port = 0

    def _make_authentication(self) -> None:
        auth = self._settings.auth
        keys = ApiKeyAuthenticator(self.registry, self.mirror, supervisor=self.supervisor)
        self._address_quota = ClientLookupQuota(per_second=auth.unknown_per_s)
        self._chain = AuthenticatorChain(
            build_authenticators(auth, keys, self.supervisor),
            networks_report_only=self._settings.edge.report_only,
            address_quota=self._address_quota,
        )
        self._last_used = LastUsedRecorder(self.registry, keys.used, supervisor=self.supervisor)
        self._anchoring = build_anchoring(self._settings, self.registry, self.supervisor)

    def _make_upstream(self) -> None:
        settings = self._settings
        egress_policy = self._egress_policy = build_egress_policy(settings.upstream)
        self._id_tokens = build_id_tokens(settings.upstream, egress_policy, self.supervisor)
        self._signer = build_caller_token_signer(settings.upstream)
        self.upstream = build_upstream(settings, egress_policy, self._id_tokens, self.supervisor)

    def _make_limits(self) -> None:
        """The stages that refuse requests, and count what they refuse."""
        limits, edge = self._settings.limits, self._settings.edge
        self._redis_limiter = (
            RedisLimiter(limits.redis_url, timeout_s=limits.redis_timeout_s) if limits.redis_url else None
        )
        self.rate_limit = RateLimit(
            self._redis_limiter, lost=limits.when_redis_is_unavailable, report_only=limits.report_only
        )
        self.buffer_start_of_body = BufferStartOfBody(max_waiting_requests=limits.in_flight)
        self.concurrency_limit = ConcurrencyLimit(
            in_flight=limits.in_flight,
            model_in_flight=limits.model_in_flight,
            queue_per_model=limits.queue,
            queue_wait_s=limits.queue_wait_s,
            report_only_policy_limits=limits.report_only,
        )
        self.adaptive_backend_concurrency = AdaptiveBackendConcurrency(
            sharers=max(1, self._settings.server.workers) if self._shares_port else 1,
            scales=partial(is_autoscaled, everywhere=self._settings.upstream.policy == "cloud"),
        )
        self.authorize = Authorize(body_limit_bytes=limits.body_bytes, report_only=edge.report_only)
        self.gateway_ip_allowlist = GatewayIpAllowlist(
            parse_networks(edge.networks), lambda: self.mirror.snapshot, report_only=edge.report_only
        )

    def _make_telemetry(self, logs: LogWriter, folder: Path | None) -> None:
        self.telemetry = build_telemetry(self._settings, logs, folder)
        own = ComponentMetrics(
            mirror=self.mirror,
            chain=self._chain,
            address_quota=self._address_quota,
            gateway_ip_allowlist=self.gateway_ip_allowlist,
            authorize=self.authorize,
            rate_limit=self.rate_limit,
            concurrency_limit=self.concurrency_limit,
            adaptive_backend_concurrency=self.adaptive_backend_concurrency,
            connections=lambda: self.connections,
        )
        self.telemetry.metrics.add_readers(gauges=own.gauges, counters=own.counters)
        if self._anchoring is not None:
            self.telemetry.metrics.add_readers(gauges=self._anchoring.lag_gauge)
        if isinstance(self.upstream, PooledUpstream):  # the plain one keeps its connections to itself
            self.telemetry.metrics.add_readers(gauges=self.upstream.gauges, counters=self.upstream.counters)

    def _make_pipeline(self) -> None:
        edge, trace = self._settings.edge, self._settings.trace
        self._control = ControlRoutes(
            self.mirror,
            self._chain,
            registry=self.registry,
            shared=self.telemetry.shared,
            reader=self.telemetry.reader,
            figures=self.telemetry.figures,
            admits=self.gateway_ip_allowlist.admits,
            supervisor=self.supervisor,
            jwks=self._signer.jwks if self._signer is not None else b'{"keys":[]}',
            cors=build_health_and_openapi_cors(edge.cors_origins),
        )
        proxies = TrustedProxies(
            hops=edge.trusted_hops,
            proxies=parse_networks(edge.trusted_proxies),
            forwarded=edge.forwarding_header == "forwarded",
        )
        self._forward = Forward(self.upstream, self._signer)
        self.pipeline = Pipeline(
            read_request_context=ReadRequestContext(proxies, self._name),
            control=self._control,
            gateway_ip_allowlist=self.gateway_ip_allowlist,
            route_to_backend=RouteToBackend(self.mirror),
            cors=Cors(),
            authenticate=Authenticate(self._chain),
            authorize=self.authorize,
            trace_sampling=TraceSampling(ratio=trace.ratio, trusted=parse_networks(trace.trusted_networks)),
            budget_limit=BudgetLimit(self._budgets),
            rate_limit=self.rate_limit,
            buffer_start_of_body=self.buffer_start_of_body,
            pinned_or_sticky_override=PinnedOrStickyOverride(),
            concurrency_limit=self.concurrency_limit,
            adaptive_backend_concurrency=self.adaptive_backend_concurrency,
            forward=self._forward,
            record=self.telemetry.record,
        )

    def _make_rollouts(self) -> None:
        settings = self._settings
        self._reporter = RolloutReporter(
            self._figures,
            self.pipeline.set_rollout_exchange_counter,
            supervisor=self.supervisor,
            controller_lease=LeaseObserver(self.registry, LEASE),
            process=local_process_identity(settings),
        )
        self.telemetry.metrics.add_readers(gauges=self._reporter.gauges)
        self.mirror.on_swap = self._follow
        self._controller: RolloutController | None = None
        if settings.rollouts.controller:
            self._controller = build_controller(
                settings, self.registry, self._figures, self.mirror, self.supervisor
            )
            self.telemetry.metrics.add_readers(counters=self._controller.counters)

    def _make_cost(self) -> None:
        self._usage = build_usage_reporter(
            self._settings,
            self._figures,
            partial(usage_from_metrics, self.telemetry.metrics),
            self.mirror,
            self.supervisor,
        )
        self._budgets: BudgetKeeper | None = None
        if self._usage is not None:
            self._budgets = BudgetKeeper(self._figures, self._usage)
            self._usage.after_write = self._budgets.refresh
            self.telemetry.metrics.overflow_caller_labels = self._budgets.overflow_caller_labels
            self.telemetry.metrics.add_readers(gauges=self._budgets.gauges)

    def _make_shadows(self) -> None:
        upstream = build_shadow_upstream(
            self._settings, self._egress_policy, self._id_tokens, self.supervisor
        )
        self._shadows = ShadowRunner(
            self._figures,
            self._forward.set_observer,
            upstream,
            self.adaptive_backend_concurrency,
            supervisor=self.supervisor,
        )
        self._control.model_views["shadow"] = ModelShadowStatusReader(self.mirror, self._figures)
        self.telemetry.metrics.add_readers(counters=self._shadows.counters)

    def _follow(self, snapshot: Snapshot) -> None:
        self._reporter.follow(snapshot)
        self._shadows.follow(snapshot)
        if self._budgets is not None:
            self._budgets.follow(snapshot)
        elif snapshot.budgets:
            _log.error("budgets are set, but not counted here: set rollouts.figures, or cost.usage to on")

    async def start(self) -> None:
        """Start the whole gateway. Raises OSError where the port is taken."""
        server = self._settings.server
        asyncio.get_running_loop().set_default_executor(
            self.supervisor.make_blocking_call_executor("blocking call", threads=_BLOCKING)
        )
        async with AsyncExitStack() as stack:
            if self._own_registry:
                stack.push_async_callback(self.registry.close)
            if self._figures is not self.registry:
                stack.push_async_callback(self._figures.close)
            self.telemetry.start()
            stack.push_async_callback(self.telemetry.stop)
            parts = (
                self.mirror,
                self._reporter,
                self._shadows,
                self._controller,
                self._budgets,
                self._usage,
                self._last_used,
                self._anchoring,
                self._chain,
                self._id_tokens,
                self._redis_limiter,
                self.upstream,
            )
            for part in parts:
                if part is not None:
                    await part.start()
                    stack.push_async_callback(part.stop)
            self.connections = build_caller_connections(self._settings, self.supervisor)
            http = build_server(server, self.pipeline, self.connections)
            stack.push_async_callback(http.shutdown, _CANCEL_S)
            sockets = listen(server.host, server.port, shared=self._shares_port)
            listener = Listener(
                asyncio.get_running_loop(), sockets, http, self.connections, supervisor=self.supervisor
            )
            listener.start()
            stack.push_async_callback(self._drain, listener)
            self.port = listener.port
            stack.callback(self._control.live.stop)  # first of all: people who watch would hold the drain up
            self._stack = stack.pop_all()

    async def _drain(self, listener: Listener) -> None:
        server = self._settings.server
        self._control.stopping = True
        loop = asyncio.get_running_loop()
        end = loop.time() + server.stop_grace_s
        self.connections.begin_drain()
        # Connections are accepted until this is over, so that only then an end of all means that nobody comes any more.
        await listener.stop_accepting(linger_s=server.stop_linger_s)
        await self.connections.wait_until_all_closed(end - loop.time())

    def _name(self) -> str:
        """How all instances of this deployment call themselves in Via: they share a registry, and nobody else does."""
        snapshot = self.mirror.snapshot
        return "chips" if snapshot is None else snapshot.via_name

    async def stop(self) -> None:
        """Stop the gateway gracefully.

        It stops accepting, answers what callers have sent within the grace period, and closes everything.
        """
        await self._stack.aclose()
