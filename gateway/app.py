"""The composition root: settings in, a whole gateway out. Nothing else constructs a collaborator.

Objects are made from the bottom up and started in that order; what was started last is stopped first.
"""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from gateway.auth.api_key import ApiKeyAuthenticator
from gateway.auth.base import Authenticator
from gateway.auth.certificate import CertificateAuthenticator
from gateway.auth.chain import AuthenticatorChain
from gateway.auth.last_used import LastUsed
from gateway.auth.plugins import API_KEY, CERTIFICATE, TOKEN, load_plugin
from gateway.control.routes import ControlRoutes
from gateway.core.client_address import TrustedProxies
from gateway.core.model import Backend
from gateway.core.networks import NetworkSet, parse_network
from gateway.limits.redis_limiter import RedisLimiter
from gateway.pipeline import Pipeline
from gateway.registry.base import Registry
from gateway.registry.client_ip_quota import ClientIpQuota
from gateway.registry.fallback import open_fallback
from gateway.registry.mirror import FALLBACK, Mirror
from gateway.registry.schemes import open_registry
from gateway.server.fast import FastServer
from gateway.server.listener import Listener, listen
from gateway.server.open_connections import OpenConnections
from gateway.server.open_file_limit import default_connections, file_limit
from gateway.server.plain import PlainRequestHandler
from gateway.server.plain_protocol import StrictServer
from gateway.settings import Auth, Settings
from gateway.settings import Upstream as UpstreamSettings
from gateway.stages.authenticate import Authenticate
from gateway.stages.authorize import Authorize
from gateway.stages.backend_concurrency import BackendConcurrency
from gateway.stages.buffer_request_body import BufferRequestBody
from gateway.stages.concurrency_limit import ConcurrencyLimit
from gateway.stages.cors import Cors
from gateway.stages.forward import Forward
from gateway.stages.ip_allowlist import IpAllowlist
from gateway.stages.rate_limit import RateLimit
from gateway.stages.read_request_head import ReadRequestHead
from gateway.stages.route import Route
from gateway.stages.trace_sampling import TraceSampling
from gateway.supervisor import Supervisor
from gateway.telemetry.logs import LogWriter, wants_json
from gateway.telemetry.setup import Telemetry
from gateway.upstream.base import Upstream
from gateway.upstream.egress_policy import EgressPolicy
from gateway.upstream.fast import FastUpstream
from gateway.upstream.id_tokens import IdTokenProvider
from gateway.upstream.plain import PlainUpstream
from gateway.upstream.tls import client_context

if TYPE_CHECKING:
    from gateway.auth.caller_token import CallerTokenSigner
    from gateway.control.cors import ControlCors

_BLOCKING = 16  # calls at once that block: the console's reads, name look-ups, stops
_log = logging.getLogger(__name__)

_CANCEL_S = 0.2  # after the drain: how long a request that is cancelled may take to end


class Gateway:
    """A whole gateway: `start` it, and `address` says where it listens; `stop` drains it.

    `folder` is what the workers on one port share; who has none is alone. A `registry` given here is used instead of
    the one the settings name; the code that passes it in closes it.
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
        self.supervisor = supervisor = logs.supervisor
        self._shares_port = folder is not None
        self._stack = AsyncExitStack()
        self._own_registry = registry is None
        self.registry = registry or open_registry(settings.registry)
        self.mirror = Mirror(
            self.registry,
            fallback=open_fallback(settings.registry_fallback) if settings.registry_fallback else None,
            first_load_timeout_s=settings.server.registry_wait_s,
            hold_s=settings.server.registry_hold_s,
            fallback_keys_age_s=settings.server.fallback_keys_age_s,
            supervisor=supervisor,
        )
        keys = ApiKeyAuthenticator(self.registry, self.mirror, supervisor=supervisor)
        self._address_quota = ClientIpQuota(per_second=settings.auth.unknown_per_s)
        chain = AuthenticatorChain(
            _authenticators(settings.auth, keys, supervisor),
            report_only=settings.edge.report_only,
            address_quota=self._address_quota,
        )
        self._chain = chain
        self._last_used = LastUsed(self.registry, keys.used, supervisor=supervisor)
        upstream = settings.upstream
        egress_policy = egress_policy_from(upstream)
        self._identity = (
            IdTokenProvider(
                metadata_host=upstream.metadata_host,
                may_name_audience=egress_policy.may_name_audience,
                supervisor=supervisor,
            )
            if upstream.identity == "google"
            else None
        )
        signer = _signer(upstream) if upstream.sign_callers else None
        if upstream.ca_file:
            _check_certificates(upstream.ca_file)
        make_upstream = (
            PlainUpstream
            if settings.server.path == "plain"
            else partial(FastUpstream, tunnel_idle_s=upstream.tunnel_idle_s, supervisor=supervisor)
        )
        self.upstream: Upstream = make_upstream(
            connections=upstream.connections,
            connect_timeout_s=upstream.connect_timeout_s,
            idle_s=upstream.idle_s,
            ca_file=upstream.ca_file,
            egress_policy=egress_policy,
            identity=self._identity,
        )
        limits, edge, trace = settings.limits, settings.edge, settings.trace
        self._redis_limiter = (
            RedisLimiter(limits.redis_url, timeout_s=limits.redis_timeout_s) if limits.redis_url else None
        )
        self.rate_limit = RateLimit(
            self._redis_limiter, lost=limits.when_redis_is_unavailable, report_only=limits.report_only
        )
        self.buffer_request_body = BufferRequestBody(limit=limits.in_flight)
        self.concurrency_limit = ConcurrencyLimit(
            in_flight=limits.in_flight,
            model_in_flight=limits.model_in_flight,
            queue=limits.queue,
            queue_wait_s=limits.queue_wait_s,
            report_only=limits.report_only,
        )
        self.backend_concurrency = BackendConcurrency(
            sharers=max(1, settings.server.workers) if folder is not None else 1,
            scales=partial(_scales, anywhere=upstream.policy == "cloud"),
        )
        self.telemetry = Telemetry(
            logs,
            json=wants_json(settings.log.format),
            log_ratio=settings.log.ratio,
            project=settings.log.project,
            service=trace.service or "chips",
            store=Path(trace.store) if trace.store != "off" else None,
            store_requests=trace.store_requests,
            recent_per_s=trace.recent_per_s,
            exporter=trace.resolve_exporter(settings.log.project),
            endpoint=trace.otlp_endpoint,
            folder=folder,
            metrics_exporter=settings.metrics.exporter,
            metrics_endpoint=settings.metrics.otlp_endpoint or trace.otlp_endpoint,
            metrics_every_s=settings.metrics.every_s,
        )
        self.telemetry.metrics.watch(gauges=self._gauges, counters=self._refusals)
        if isinstance(self.upstream, FastUpstream):  # the plain one keeps its connections to itself
            self.telemetry.metrics.watch(gauges=self.upstream.gauges, counters=self.upstream.counters)
        self.authorize = Authorize(body_limit_bytes=limits.body_bytes, report_only=edge.report_only)
        self.ip_allowlist = IpAllowlist(
            [parse_network(network) for network in edge.networks],
            lambda: self.mirror.snapshot,
            report_only=edge.report_only,
        )
        self._control = ControlRoutes(
            self.mirror,
            chain,
            registry=self.registry,
            shared=self.telemetry.shared,
            reader=self.telemetry.reader,
            admits=self.ip_allowlist.admits,
            supervisor=supervisor,
            jwks=signer.jwks if signer is not None else b'{"keys":[]}',
            cors=_control_cors(edge.cors_origins) if edge.cors_origins else None,
        )
        self.pipeline = Pipeline(
            read_request_head=ReadRequestHead(
                TrustedProxies(
                    hops=edge.trusted_hops,
                    proxies=[parse_network(network) for network in edge.trusted_proxies],
                    forwarded=edge.forwarding_header == "forwarded",
                ),
                self._name,
            ),
            control=self._control,
            ip_allowlist=self.ip_allowlist,
            route=Route(self.mirror),
            cors=Cors(),
            authenticate=Authenticate(chain),
            authorize=self.authorize,
            trace_sampling=TraceSampling(
                ratio=trace.ratio, trusted=[parse_network(n) for n in trace.trusted_networks]
            ),
            rate_limit=self.rate_limit,
            buffer_request_body=self.buffer_request_body,
            concurrency_limit=self.concurrency_limit,
            backend_concurrency=self.backend_concurrency,
            forward=Forward(self.upstream, signer),
            record=self.telemetry.record,
        )
        self.port = 0

    async def start(self) -> None:
        """Start everything; raises OSError where the port is taken."""
        server = self._settings.server
        asyncio.get_running_loop().set_default_executor(
            self.supervisor.pool("blocking call", threads=_BLOCKING)
        )
        async with AsyncExitStack() as stack:
            if self._own_registry:
                stack.push_async_callback(self.registry.close)
            self.telemetry.start()
            stack.push_async_callback(self.telemetry.stop)
            await self.mirror.start()
            stack.push_async_callback(self.mirror.stop)
            await self._last_used.start()
            stack.push_async_callback(self._last_used.stop)
            await self._chain.start()
            stack.push_async_callback(self._chain.stop)
            if self._identity is not None:
                await self._identity.start()
                stack.push_async_callback(self._identity.stop)
            if self._redis_limiter is not None:
                await self._redis_limiter.start()
                stack.push_async_callback(self._redis_limiter.stop)
            self.connections = self._make_connections()
            await self.upstream.start()
            stack.push_async_callback(self.upstream.stop)
            http = self._make_server()
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

    def _make_connections(self) -> OpenConnections:
        server, edge = self._settings.server, self._settings.edge
        limit = server.connections or default_connections()
        if limit >= file_limit():
            _log.warning(
                "server.connections is %d, but this process may open %d files; raise ulimit -n",
                limit,
                file_limit(),
            )
        proxies = NetworkSet([parse_network(network) for network in edge.trusted_proxies])
        return OpenConnections(
            asyncio.get_running_loop(),
            linger_s=server.stop_linger_s,
            limit=limit,
            peer_limit=server.peer_connections or max(1, limit // 2),
            # With trusted hops every peer is one of them, and speaks for all callers.
            supervisor=self.supervisor,
            is_proxy=lambda peer: bool(edge.trusted_hops) or _is_in(peer, proxies),
        )

    async def _drain(self, listener: Listener) -> None:
        server = self._settings.server
        self._control.stopping = True
        async with asyncio.TaskGroup() as both:
            both.create_task(listener.stop(linger_s=server.stop_linger_s), name="close the port")
            both.create_task(self.connections.drain(server.stop_grace_s), name="drain")

    def _make_server(self) -> web.Server:
        server = self._settings.server
        if server.path == "fast":
            return FastServer(
                self.pipeline,
                keepalive_timeout_s=server.keep_alive_s,
                head_timeout_s=server.header_timeout_s,
                body_timeout_s=server.body_timeout_s,
                field_limit_bytes=server.header_bytes,
                connections=self.connections,
            )
        return StrictServer(
            PlainRequestHandler(self.pipeline, body_timeout_s=server.body_timeout_s),
            connections=self.connections,
            head_timeout_s=server.header_timeout_s,
            handler_cancellation=True,  # a caller who leaves takes the backend's work along
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=server.keep_alive_s,
            max_line_size=server.header_bytes,
            max_field_size=server.header_bytes,
        )

    def _name(self) -> str:
        """How all instances of this deployment call themselves in Via: they share a registry, and nobody else does."""
        snapshot = self.mirror.snapshot
        return "chips" if snapshot is None else snapshot.via_name

    async def stop(self) -> None:
        """Stop accepting, answer what callers have sent within the grace period, close everything."""
        await self._stack.aclose()

    def _refusals(self) -> dict[str, dict[str, float]]:
        counts = {
            "allowlist": self.ip_allowlist.refused,
            "key-networks": self._chain.refused,
            "model-networks": self.authorize.refused,
            "unknown-credentials": self._address_quota.refused,
            "limits": self.rate_limit.refused,
            "in-flight": self.concurrency_limit.refused,
        }
        return {
            "chips_edge_refusals_total": {by: float(count) for by, count in counts.items()},
            "chips_backend_refusals_total": self.backend_concurrency.refusals(),
            "chips_connections_turned_away_total": {
                reason: float(count) for reason, count in self.connections.turned_away.items()
            },
        }

    def _gauges(self) -> dict[str, dict[str, float]]:
        snapshot = self.mirror.snapshot
        gauges = {
            "chips_in_flight_requests": self.concurrency_limit.in_flight,
            "chips_connections": float(len(self.connections)),
            "chips_registry_age_seconds": self.mirror.age_s,
            "chips_registry_connected": float(self.mirror.connected),
            "chips_registry_fallback": float(self.mirror.source == FALLBACK),
            "chips_registry_held": float(bool(self.mirror.held)),
        }
        if snapshot is not None:
            gauges["chips_registry_generation"] = snapshot.generation
            gauges["chips_registry_models"] = len(snapshot.entries)
            gauges["chips_registry_problems"] = len(snapshot.problems)
        readings = {name: {"": float(value)} for name, value in gauges.items()}
        waiting = self.backend_concurrency.waiting()
        readings["chips_model_in_flight_requests"] = {
            name: count - waiting.get(name, 0.0)
            for name, count in self.concurrency_limit.in_flight_by_model().items()
        }
        policies = {} if snapshot is None else {n: e.model.policy for n, e in snapshot.entries.items()}
        queued = Counter(self.concurrency_limit.queued_by_model())
        queued.update({name: count for name, count in waiting.items() if count})
        readings["chips_model_queued_requests"] = dict(queued)
        readings["chips_model_window_requests"] = self.backend_concurrency.sizes()
        readings["chips_objective_availability_ratio"] = {
            name: policy.availability for name, policy in policies.items() if policy.availability is not None
        }
        readings["chips_objective_latency_seconds"] = {
            name: policy.latency_s for name, policy in policies.items() if policy.latency_s is not None
        }
        return readings


def _is_in(peer: str, networks: NetworkSet) -> bool:
    try:
        return ip_address(peer) in networks
    except ValueError:  # no address: a socket of another family
        return False


def _scales(backend: Backend, *, anywhere: bool) -> bool:
    """Whether more instances of it start where more requests come: so it is on Cloud Run."""
    return anywhere or (urlsplit(backend.url).hostname or "").endswith(".run.app")


def egress_policy_from(upstream: UpstreamSettings) -> EgressPolicy:
    return EgressPolicy(
        upstream.policy,
        hosts=upstream.hosts,
        networks=[parse_network(network) for network in upstream.networks],
    )


def _check_certificates(path: str) -> None:
    """Read the file now: the first request to an https backend is a bad moment to learn that it is not there."""
    try:
        client_context(path)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"upstream.ca_file: {path}: {error}") from None


def _signer(upstream: UpstreamSettings) -> "CallerTokenSigner":
    from gateway.auth.caller_token import CallerTokenSigner

    return CallerTokenSigner([Path(file) for file in upstream.signing_keys])


def _control_cors(origins: tuple[str, ...]) -> "ControlCors":
    from gateway.control.cors import ControlCors

    return ControlCors(origins)


def _authenticators(auth: Auth, keys: ApiKeyAuthenticator, supervisor: Supervisor) -> list[Authenticator]:
    """Those that `auth.chain` names, in its order; of the built-in ones, those that are set up."""
    chain: list[Authenticator] = []
    for name in auth.chain:
        if name == API_KEY:
            chain.append(keys)
        elif name == TOKEN:
            if auth.issuers:
                from gateway.auth.jwt import TokenAuthenticator

                chain.append(TokenAuthenticator(auth.issuers, supervisor=supervisor))
        elif name == CERTIFICATE:
            if auth.certificates:
                chain.append(
                    CertificateAuthenticator(
                        auth.certificates,
                        identity_header=auth.certificate_header,
                        verified_header=auth.certificate_verified_header,
                    )
                )
        else:
            chain.append(load_plugin(name))
    return chain
