# Long: one table, read from top to bottom.
"""All settings of the gateway, in groups. Each setting has its type, default and description."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from gateway.core.token_and_certificate_rules import ForwardedCertificateRule, IssuerRule
from gateway.settings.audit import Audit
from gateway.settings.base_group import Group
from gateway.settings.cost import Cost
from gateway.settings.rollouts import Rollouts


class Server(Group, frozen=True):
    """Settings of the server: address, connections, time-outs, workers."""

    host: Annotated[
        str,
        Meta(
            description="Address to listen on; `0.0.0.0`, every address, where `PORT` is set, as in a container. The allowlist keeps outsiders out there."
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port; `PORT`, which Cloud Run sets, is read too.")
    ] = 8080
    stop_grace_s: Annotated[
        float,
        Meta(
            gt=0, le=600, description="How long a stop waits for requests under way; Cloud Run allows 10 s."
        ),
    ] = 8.0
    stop_linger_s: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="How much of that idle connections stay open, for requests on their way; each is answered, and ends its connection.",
        ),
    ] = 1.0
    keep_alive_s: Annotated[
        float,
        Meta(
            gt=0, description="How long an idle caller's connection is kept; longer than a load balancer's."
        ),
    ] = 620.0
    header_bytes: Annotated[
        int, Meta(ge=1024, le=1_048_576, description="Longest request line or header field.")
    ] = 16_384
    connections: Annotated[
        int,
        Meta(
            ge=0,
            description="Connections that callers may hold in one process; beyond, the oldest idle one goes. 0: what the files allow, 10000 at most.",
        ),
    ] = 0
    peer_connections: Annotated[
        int,
        Meta(
            ge=0,
            description="The same from one address, unless it is a trusted proxy's (Cloud Run's is). 0: half of all.",
        ),
    ] = 0
    header_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="How long a caller may take to send a request's head; the first, from the connection's beginning.",
        ),
    ] = 20.0
    body_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="How long a caller may take for each 64 KiB of a request's body, or for all of a shorter one.",
        ),
    ] = 15.0
    workers: Annotated[
        int,
        Meta(ge=0, le=256, description="Processes on the port; 0: one for each CPU this container may use."),
    ] = 0
    stall_s: Annotated[
        float,
        Meta(
            ge=3,
            le=3600,
            description="A worker whose event loop has not turned for so long is ended, and another takes its place.",
        ),
    ] = 30.0
    path: Annotated[
        Literal["fast", "plain"],
        Meta(
            description="`fast`: own connections; `plain`: aiohttp's by its public API, less strict with backends: docs/threat-model.md."
        ),
    ] = "fast"
    registry_wait_s: Annotated[
        float,
        Meta(gt=0, description="How long a start waits for the registry before it listens all the same."),
    ] = 10.0
    registry_hold_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long the last good state is kept when the registry is suddenly another one, or an older one.",
        ),
    ] = 300.0
    fallback_keys_age_s: Annotated[
        float,
        Meta(ge=0, description="How old registry_fallback may be for the API keys in it; 0: it holds none."),
    ] = 7 * 24 * 3600.0


class Edge(Group, frozen=True):
    """Settings of the edge: allowed networks, trusted proxies, CORS of the gateway's own pages."""

    networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks whose callers are admitted, such as 192.0.2.0/24. None: this machine only."
        ),
    ] = ()
    trusted_hops: Annotated[
        int,
        Meta(
            ge=0,
            le=10,
            description="Proxies in front that append to X-Forwarded-For: Cloud Run 1, with a balancer 2.",
        ),
    ] = 0
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Instead of a number of hops: networks of the proxies whose headers are believed."),
    ] = ()
    forwarding_header: Annotated[
        Literal["x-forwarded-for", "forwarded"],
        Meta(description="Which header the trusted proxies write; no other one is read."),
    ] = "x-forwarded-for"
    report_only: Annotated[
        bool,
        Meta(
            description="Networks (admitted, of keys, of models) only count and log what they would refuse. Use it to try a list out."
        ),
    ] = False
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Web pages, such as https://app.example.com, that may read /, /-/docs/, /-/openapi.json and health; models have their own."
        ),
    ] = ()


class Auth(Group, frozen=True):
    """Settings of authentication: credentials, issuers, certificates."""

    chain: Annotated[
        tuple[str, ...],
        Meta(
            description="Kinds of credentials, in the order they are tried; also names of plug-ins (entry points)."
        ),
    ] = ("api-key", "token", "certificate")
    issuers: Annotated[
        tuple[IssuerRule, ...],
        Meta(description="Whose tokens are taken: docs/how-to/let-callers-in.md. JSON outside the file."),
    ] = ()
    certificates: Annotated[
        tuple[ForwardedCertificateRule, ...],
        Meta(
            description="Which client certificates, checked by a load balancer, are taken. JSON outside the file."
        ),
    ] = ()
    unknown_per_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Credentials that turn out to be unknown, from one address in a second (ten times that at once); more are refused unseen.",
        ),
    ] = 20.0
    certificate_header: Annotated[
        str, Meta(description="The header by which the balancer says whose certificate it is.")
    ] = "x-client-cert-spiffe-id"
    certificate_verified_header: Annotated[
        str, Meta(description="The header by which it says `true` where the certificate's chain is good.")
    ] = "x-client-cert-chain-verified"


class Limits(Group, frozen=True):
    """Settings of limits: body size, requests in flight, queues, rate limits."""

    body_bytes: Annotated[
        int,
        Meta(
            ge=1, description="Largest request body where a model's policy sets none; Cloud Run takes 32 MiB."
        ),
    ] = 32 * 1024 * 1024
    in_flight: Annotated[int, Meta(ge=1, description="Requests under way in one gateway process.")] = 4096
    model_in_flight: Annotated[
        int, Meta(ge=1, description="Requests at one model at once, where its policy sets none.")
    ] = 1024
    queue: Annotated[int, Meta(ge=0, description="Requests that wait for a model that is full.")] = 256
    queue_wait_s: Annotated[float, Meta(gt=0, description="How long one of them waits.")] = 1.0
    report_only: Annotated[
        bool,
        Meta(
            description="Rates, quotas and requests in flight (of keys, of models) only count and log what they would refuse."
        ),
    ] = False
    redis_url: Annotated[
        str,
        Meta(
            description="redis:// or rediss:// URL by which rates and quotas hold for all gateways together. None: each counts."
        ),
    ] = ""
    redis_timeout_s: Annotated[float, Meta(gt=0, description="How long that Redis may take to answer.")] = (
        0.25
    )
    when_redis_is_unavailable: Annotated[
        Literal["local", "refuse", "admit"],
        Meta(
            description="While it does not answer: each gateway counts for itself, refuses, or counts nothing."
        ),
    ] = "local"


class Upstream(Group, frozen=True):
    """Settings of calls to backends: connections, time-outs, egress policy, identity."""

    connections: Annotated[int, Meta(ge=1, description="Connections to one backend.")] = 1024
    connect_timeout_s: Annotated[float, Meta(gt=0, description="How long opening one may take.")] = 5.0
    ca_file: Annotated[
        str, Meta(description="Certificates (PEM) that may sign backends, in addition to the system's.")
    ] = ""
    idle_s: Annotated[
        float,
        Meta(gt=0, description="How long an idle one is kept; shorter than the backend's own time-out."),
    ] = 30.0
    tunnel_idle_s: Annotated[
        float,
        Meta(
            gt=0, description="How long a WebSocket may be silent; Cloud Run ends every one after 60 minutes."
        ),
    ] = 3600.0
    policy: Annotated[
        Literal["local", "cloud"],
        Meta(
            description="Where backends may be. `cloud`, the default on Cloud Run: named hosts with public addresses alone."
        ),
    ] = "local"
    hosts: Annotated[
        tuple[str, ...],
        Meta(description="Under `cloud`: hosts of backends besides *.run.app, such as *.example.com."),
    ] = ()
    networks: Annotated[
        tuple[str, ...], Meta(description="Private networks in which backends may be, such as 10.8.0.0/24.")
    ] = ()
    identity: Annotated[
        Literal["none", "google"],
        Meta(
            description="`google`, the default on Cloud Run: ID tokens in X-Serverless-Authorization, to https:// backends."
        ),
    ] = "none"
    metadata_host: Annotated[
        str, Meta(description="Where ID tokens come from; `GCE_METADATA_HOST` is read too.")
    ] = "metadata.google.internal"
    sign_callers: Annotated[
        bool,
        Meta(description="Tell backends who calls in a signed X-Chips-Caller-Token; keys at /-/jwks.json."),
    ] = False
    signing_keys: Annotated[
        tuple[str, ...],
        Meta(
            description="Files of private keys (P-256, PEM) to sign with: the first signs, all are published. None: one per process."
        ),
    ] = ()


class Log(Group, frozen=True):
    """Settings of the log."""

    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="`auto`: readable on a terminal, JSON lines elsewhere."),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is written.")
    ] = "info"
    ratio: Annotated[
        float, Meta(ge=0, le=1, description="Share of good requests that get a log line; bad ones always do.")
    ] = 1.0
    project: Annotated[
        str, Meta(description="Google Cloud project of the traces; `GOOGLE_CLOUD_PROJECT` is read too.")
    ] = ""


class Trace(Group, frozen=True):
    """Settings of tracing and the trace store."""

    ratio: Annotated[
        float,
        Meta(
            ge=0, le=1, description="Share of requests whose trace is kept, where a model's policy sets none."
        ),
    ] = 0.01
    trusted_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks whose callers may have a trace kept by its flag. None: this machine only."
        ),
    ] = ()
    exporter: Annotated[
        Literal["auto", "cloud-trace", "otlp", "none"],
        Meta(
            description="Where kept traces are sent. `auto`: to Cloud Trace on Cloud Run, elsewhere nowhere."
        ),
    ] = "auto"
    otlp_endpoint: Annotated[
        str,
        Meta(description="Base URL of an OTLP/HTTP collector; https://telemetry.googleapis.com is Google's."),
    ] = "http://localhost:4318"
    service: Annotated[
        str,
        Meta(description="Name of this gateway in traces; `K_SERVICE`, which Cloud Run sets, is read too."),
    ] = ""
    store: Annotated[
        str,
        Meta(
            description="SQLite file of recent and kept requests, for `chips why` and the console; `off`: none. Default: in the user's state folder."
        ),
    ] = "off"
    store_requests: Annotated[int, Meta(ge=100, description="How many requests that file keeps.")] = 20_000
    recent_per_s: Annotated[
        int,
        Meta(ge=0, description="Requests a second that it keeps though nothing else keeps their trace."),
    ] = 10

    def resolve_exporter(self, project: str) -> str:
        if self.exporter == "auto":
            return "cloud-trace" if project and self.service else "none"
        return self.exporter


class Metrics(Group, frozen=True):
    """Settings of the metrics exporter."""

    exporter: Annotated[
        Literal["none", "cloud-monitoring", "otlp"],
        Meta(description="Where metrics are sent, in addition to `/-/metrics`, which is always there."),
    ] = "none"
    otlp_endpoint: Annotated[
        str, Meta(description="Base URL of the OTLP/HTTP collector; empty: that of the traces.")
    ] = ""
    every_s: Annotated[
        float, Meta(ge=5, le=600, description="How often they are sent; Cloud Monitoring takes one in 5 s.")
    ] = 60.0


class Settings(Group, frozen=True):
    """All settings, by group."""

    registry: Annotated[
        str,
        Meta(
            description="URL of the registry: sqlite:///path/registry.db, firestore://PROJECT/DATABASE or memory://NAME."
        ),
    ]
    registry_fallback: Annotated[
        str,
        Meta(
            description="Copy of the registry for a start while it is away: file:/path, or gs://bucket/object."
        ),
    ] = ""
    artifacts: Annotated[
        str, Meta(description="Where `chips publish` puts artifacts: gs://bucket/prefix or a folder.")
    ] = ""
    server: Server = Server()
    edge: Edge = Edge()
    auth: Auth = Auth()
    limits: Limits = Limits()
    upstream: Upstream = Upstream()
    log: Log = Log()
    trace: Trace = Trace()
    metrics: Metrics = Metrics()
    audit: Audit = Audit()
    rollouts: Rollouts = Rollouts()
    cost: Cost = Cost()


GROUPS: Mapping[str, type[Group]] = {
    "server": Server,
    "edge": Edge,
    "auth": Auth,
    "limits": Limits,
    "upstream": Upstream,
    "log": Log,
    "trace": Trace,
    "metrics": Metrics,
    "audit": Audit,
    "rollouts": Rollouts,
    "cost": Cost,
}

# Names that begin like a setting and are none: those of the commands, the tests, and of backends in the same shell.
