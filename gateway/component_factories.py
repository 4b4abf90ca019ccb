"""Make the parts of a gateway from their settings. There is one function for each part; `gateway/app.py` wires them."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from gateway.auth.authenticator_plugins import API_KEY, CERTIFICATE, TOKEN, load_authenticator_plugin
from gateway.auth.base import Authenticator
from gateway.auth.forwarded_client_certificate import CertificateAuthenticator
from gateway.core.ip_network_set import Network, NetworkSet, parse_address, parse_network
from gateway.cost.usage_documents import UNKNOWN_SIZE, InstanceSize, instance_size_of
from gateway.cost.usage_reporter import Totals, UsageReporter
from gateway.pipeline import Pipeline
from gateway.registry.base import Registry
from gateway.registry.fallback_copy import open_fallback
from gateway.registry.mirror import Mirror
from gateway.registry.open_by_url import open_registry
from gateway.rollout.controller import RolloutController
from gateway.rollout.process_liveness import current_process
from gateway.server.caller_connection_factory import CallerConnectionFactory
from gateway.server.open_connections import OpenConnections
from gateway.server.open_file_limit import current_file_limit, default_connection_limit
from gateway.settings import Auth, Server, Settings
from gateway.settings import Upstream as UpstreamSettings
from gateway.telemetry.logs import LogWriter, should_log_json
from gateway.telemetry.setup import Telemetry
from gateway.thread_and_task_supervisor import Supervisor
from gateway.upstream.backend_tls import check_ca_file
from gateway.upstream.base import Upstream
from gateway.upstream.egress_policy import EgressPolicy
from gateway.upstream.id_tokens import IdTokenProvider
from gateway.upstream.pooled_client import PooledUpstream

if TYPE_CHECKING:
    from gateway.audit.periodic_anchoring import PeriodicAnchoring
    from gateway.auth.caller_token_signer import CallerTokenSigner
    from gateway.control.health_and_openapi_cors import HealthAndOpenapiCors

_log = logging.getLogger(__name__)

_SHADOW_CONNECTIONS = 512  # more than a shadow may use to both versions together


def parse_networks(texts: Iterable[str]) -> list[Network]:
    """Parse networks such as `192.0.2.0/24`. Raises ValueError."""
    return [parse_network(text) for text in texts]


def build_mirror(settings: Settings, registry: Registry, supervisor: Supervisor) -> Mirror:
    """The mirror of `registry`. It has its fallback copy and time-outs from the settings."""
    server = settings.server
    return Mirror(
        registry,
        fallback=open_fallback(settings.registry_fallback) if settings.registry_fallback else None,
        first_load_timeout_s=server.registry_wait_s,
        accept_reset_after_s=server.registry_hold_s,
        fallback_keys_age_s=server.fallback_keys_age_s,
        supervisor=supervisor,
    )


def build_anchoring(
    settings: Settings, registry: Registry, supervisor: Supervisor
) -> "PeriodicAnchoring | None":
    """The periodic anchoring of the history; None where this gateway does none. ValueError says what is wrong with the key."""
    audit = settings.audit
    if not audit.second_place or not audit.signing_key:
        return None
    from gateway.audit.anchor_store import open_anchor_store
    from gateway.audit.dsse_envelope import SigningError
    from gateway.audit.periodic_anchoring import PeriodicAnchoring

    try:
        return PeriodicAnchoring(
            registry,
            open_anchor_store(audit.second_place),
            Path(audit.signing_key),
            every_s=audit.every_s,
            supervisor=supervisor,
        )
    except SigningError as error:
        raise ValueError(f"audit.signing_key: {error}") from None


def build_figures_store(settings: Settings, registry: Registry) -> Registry:
    """The store for the figures that gateways report. It is the registry itself unless the settings name another."""
    return open_registry(settings.rollouts.figures) if settings.rollouts.figures else registry


def build_usage_reporter(
    settings: Settings, store: Registry, totals: Totals, mirror: Mirror, supervisor: Supervisor
) -> UsageReporter | None:
    """The reporter of usage. None where this gateway does not write down what callers use."""
    cost = settings.cost
    may_only_read = settings.registry.startswith("firestore:") and not settings.rollouts.figures
    if cost.usage == "off" or (cost.usage == "auto" and may_only_read):
        return None

    def instance_size(model: str, version: str) -> InstanceSize:
        entry = mirror.snapshot.entries.get(model) if mirror.snapshot is not None else None
        backend = entry.model.backend(version) if entry is not None else None
        return UNKNOWN_SIZE if backend is None else instance_size_of(backend)

    return UsageReporter(
        store,
        totals,
        instance_size,
        interval_s=cost.interval_s,
        supervisor=supervisor,
    )


def local_process_identity(settings: Settings) -> str:
    """The identity of this process, by which a controller on the same machine sees that it has ended.

    Empty where the store of figures is not SQLite, because a fleet shares it.
    """
    store = settings.rollouts.figures or settings.registry
    return current_process() if urlsplit(store).scheme == "sqlite" else ""


def build_controller(
    settings: Settings, registry: Registry, figures: Registry, mirror: Mirror, supervisor: Supervisor
) -> RolloutController:
    """The controller of rollouts. Raises ValueError where its secret cannot be read."""
    file = settings.rollouts.webhook_secret_file
    secret = ""
    if file:
        from gateway.rollout.webhook import webhook_key

        try:
            secret = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"rollouts.webhook_secret_file: {file} cannot be read: {error}") from None
        try:
            webhook_key(secret)
        except ValueError:
            raise ValueError(
                f"rollouts.webhook_secret_file: what follows whsec_ in {file} must be base64, and not empty"
            ) from None
    return RolloutController(
        registry,
        figures,
        mirror,
        secret=secret,
        supervisor=supervisor,
        lease_s=settings.rollouts.lease_s,
    )


def build_authenticators(auth: Auth, api_keys: Authenticator, supervisor: Supervisor) -> list[Authenticator]:
    """The authenticators that `auth.chain` names, in its order. Built-in ones are there only where they are configured."""
    chain: list[Authenticator] = []
    for name in auth.chain:
        if name == API_KEY:
            chain.append(api_keys)
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
            chain.append(load_authenticator_plugin(name))
    return chain


def build_caller_token_signer(upstream: UpstreamSettings) -> "CallerTokenSigner | None":
    """The signer of caller tokens; None unless `upstream.sign_callers` is set."""
    if not upstream.sign_callers:
        return None
    from gateway.auth.caller_token_signer import CallerTokenSigner

    return CallerTokenSigner([Path(file) for file in upstream.signing_keys])


def build_health_and_openapi_cors(origins: tuple[str, ...]) -> "HealthAndOpenapiCors | None":
    """CORS of the health and OpenAPI pages; None where no origin is allowed."""
    if not origins:
        return None
    from gateway.control.health_and_openapi_cors import HealthAndOpenapiCors

    return HealthAndOpenapiCors(origins)


def build_egress_policy(upstream: UpstreamSettings) -> EgressPolicy:
    """The egress policy, as the settings configure it.

    It comes from `upstream.policy`, `upstream.hosts` and `upstream.networks`.
    """
    return EgressPolicy(upstream.policy, hosts=upstream.hosts, networks=parse_networks(upstream.networks))


def build_id_tokens(
    upstream: UpstreamSettings, egress_policy: EgressPolicy, supervisor: Supervisor
) -> IdTokenProvider | None:
    """The provider of ID tokens; None where the gateway does not authenticate to backends."""
    if upstream.identity != "google":
        return None
    return IdTokenProvider(
        metadata_host=upstream.metadata_host,
        may_choose_audience=egress_policy.may_choose_audience,
        supervisor=supervisor,
    )


def build_upstream(
    settings: Settings, egress_policy: EgressPolicy, id_tokens: IdTokenProvider | None, supervisor: Supervisor
) -> Upstream:
    """The upstream that `server.path` names: `fast` the pooled client, `plain` the one on aiohttp.

    ValueError says what is wrong with `upstream.ca_file`.
    """
    upstream = settings.upstream
    if upstream.ca_file:
        check_ca_file(upstream.ca_file)
    kind: Callable[..., Upstream] = partial(
        PooledUpstream, tunnel_idle_s=upstream.tunnel_idle_s, supervisor=supervisor
    )
    if settings.server.path == "plain":
        from gateway.upstream.aiohttp_client import AiohttpUpstream

        kind = AiohttpUpstream
    return kind(
        connections=upstream.connections,
        connect_timeout_s=upstream.connect_timeout_s,
        idle_s=upstream.idle_s,
        extra_ca_file=upstream.ca_file,
        egress_policy=egress_policy,
        identity=id_tokens,
    )


def build_shadow_upstream(
    settings: Settings, egress_policy: EgressPolicy, id_tokens: IdTokenProvider | None, supervisor: Supervisor
) -> Upstream:
    """The upstream that shadows alone use. It has connections of its own, which a shadow's budget bounds."""
    upstream = settings.upstream
    return PooledUpstream(
        connections=_SHADOW_CONNECTIONS,
        connect_timeout_s=upstream.connect_timeout_s,
        idle_s=upstream.idle_s,
        tunnel_idle_s=upstream.tunnel_idle_s,
        extra_ca_file=upstream.ca_file,
        egress_policy=egress_policy,
        identity=id_tokens,
        supervisor=supervisor,
    )


def build_telemetry(settings: Settings, logs: LogWriter, folder: Path | None) -> Telemetry:
    """Telemetry as configured. `folder` is what the workers on one port share; None for a single process."""
    log, trace, metrics = settings.log, settings.trace, settings.metrics
    return Telemetry(
        logs,
        json=should_log_json(log.format),
        log_ratio=log.ratio,
        project=log.project,
        service=trace.service or "chips",
        store=Path(trace.store) if trace.store != "off" else None,
        store_requests=trace.store_requests,
        recent_per_s=trace.recent_per_s,
        exporter=trace.resolve_exporter(log.project),
        endpoint=trace.otlp_endpoint,
        folder=folder,
        metrics_exporter=metrics.exporter,
        metrics_endpoint=metrics.otlp_endpoint or trace.otlp_endpoint,
        metrics_every_s=metrics.every_s,
    )


def build_caller_connections(settings: Settings, supervisor: Supervisor) -> OpenConnections:
    """The callers' open connections. Their limits fit this process's open-file limit."""
    server, edge = settings.server, settings.edge
    limit = server.connections or default_connection_limit()
    if limit >= current_file_limit():
        _log.warning(
            "server.connections is %d, but this process may open %d files; raise ulimit -n",
            limit,
            current_file_limit(),
        )
    proxies = NetworkSet(parse_networks(edge.trusted_proxies))

    def is_proxy(peer: str) -> bool:
        address = parse_address(peer)  # None for a socket of another family
        # With trusted hops every peer is one of them, and speaks for all callers.
        return bool(edge.trusted_hops) or (address is not None and address in proxies)

    return OpenConnections(
        asyncio.get_running_loop(),
        linger_s=server.stop_linger_s,
        limit=limit,
        peer_limit=server.peer_connections or max(1, limit // 2),
        is_proxy=is_proxy,
        supervisor=supervisor,
    )


def build_server(server: Server, pipeline: Pipeline, connections: OpenConnections) -> web.Server:
    """The server that `server.path` names: `fast`, with connections of our own, or `plain`, on aiohttp's public API."""
    if server.path == "fast":
        return CallerConnectionFactory(
            pipeline.__call__,  # a method costs less to call than an instance
            keepalive_timeout_s=server.keep_alive_s,
            head_timeout_s=server.header_timeout_s,
            body_timeout_s=server.body_timeout_s,
            field_limit_bytes=server.header_bytes,
            connections=connections,
        )
    from gateway.server.aiohttp_adapter import AiohttpRequestHandler
    from gateway.server.strict_aiohttp_protocol import StrictAiohttpServer

    return StrictAiohttpServer(
        AiohttpRequestHandler(pipeline, body_timeout_s=server.body_timeout_s),
        connections=connections,
        head_timeout_s=server.header_timeout_s,
        handler_cancellation=True,  # a caller who leaves takes the backend's work along
        auto_decompress=False,
        access_log=None,
        keepalive_timeout=server.keep_alive_s,
        max_line_size=server.header_bytes,
        max_field_size=server.header_bytes,
    )
