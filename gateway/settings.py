"""Every setting: its type, its default, one line of why; and the one place that reads them.

Sources, the later wins: defaults, `chips.toml`, environment, flags. Everything that is wrong is reported at once, with
where it came from. What may change while the gateway runs is not a setting: it is in the registry.
"""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from gateway.auth.plugins import validate_chain
from gateway.contradictions import find_contradictions
from gateway.core.access_rules import Certificate, Issuer, check_certificate, check_issuer
from gateway.core.cors import ANY, check_origin
from gateway.core.networks import parse_network
from gateway.core.suggestions import suggest
from gateway.core.text import utf8_text
from gateway.registry.fallback import open_fallback
from gateway.registry.schemes import open_registry


class _Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True): ...


class Server(_Group, frozen=True):
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


class Edge(_Group, frozen=True):
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


class Auth(_Group, frozen=True):
    chain: Annotated[
        tuple[str, ...],
        Meta(
            description="Kinds of credentials, in the order they are tried; also names of plug-ins (entry points)."
        ),
    ] = ("api-key", "token", "certificate")
    issuers: Annotated[
        tuple[Issuer, ...],
        Meta(description="Whose tokens are taken: docs/how-to/let-callers-in.md. JSON outside the file."),
    ] = ()
    certificates: Annotated[
        tuple[Certificate, ...],
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


class Limits(_Group, frozen=True):
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


class Upstream(_Group, frozen=True):
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


class Log(_Group, frozen=True):
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


class Trace(_Group, frozen=True):
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


class Metrics(_Group, frozen=True):
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


class Settings(_Group, frozen=True):
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


GROUPS: Mapping[str, type[_Group]] = {
    "server": Server,
    "edge": Edge,
    "auth": Auth,
    "limits": Limits,
    "upstream": Upstream,
    "log": Log,
    "trace": Trace,
    "metrics": Metrics,
}

# Names that begin like a setting and are none: those of the commands, the tests, and of backends in the same shell.
_OTHER_NAMES = frozenset(
    f"CHIPS_{name}"
    for name in (
        *("CONFIG", "DEBUG", "ENV", "ENVIRONMENTS", "GATEWAY", "KEY", "TESTS_REQUIRE"),
        *("MODEL", "VERSION", "ARTIFACT", "CACHE_DIR", "CONCURRENCY", "MAX_BODY_BYTES"),
        *("ARTIFACT_DIGEST", "BATCH_TARGET_MS"),
    )
)
# Names that platforms set; ours win over them.
_PLATFORM_NAMES = {
    "PORT": "server.port",
    "GOOGLE_CLOUD_PROJECT": "log.project",
    "K_SERVICE": "trace.service",
    "GCE_METADATA_HOST": "upstream.metadata_host",
}


class Value(NamedTuple):
    """One effective setting and where it came from."""

    name: str  # group.name
    value: Any
    source: str


class SettingsError(Exception):
    """The settings cannot be used. `problems` lists everything that is wrong, a sentence each."""

    def __init__(self, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{count} in the settings:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = problems


def load_settings(
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force. `flags` is by name (`{"server.port": "80"}`); raises SettingsError.

    `defaults` stand in for the built-in ones, and everything else wins over them.
    """
    return _Loader(os.environ if environ is None else environ).load(flags or {}, config, defaults or {})[0]


def load_effective(
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> list[Value]:
    """Every setting with its source, safe to show. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    settings, sources = _Loader(environ).load(flags or {}, config, {})
    return [
        Value(name, mask_url(value) if isinstance(value, str) else value, sources.get(name, "default"))
        for name, value in _flatten(settings)
    ]


def mask_url(text: str) -> str:
    """`text` with what may be secret in a URL replaced: who it is for, and parameters by the sound of their names."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:  # no URL after all, and nobody can say where its password ends
        scheme, _, rest = text.partition("://")
        return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else f"{scheme}://***"
    who, at, host = parts.netloc.rpartition("@")
    if at:
        name, colon, _ = who.partition(":")
        text = urlunsplit(parts._replace(netloc=f"{name}:***@{host}" if colon else f"***@{host}"))
    return _PARAMETER.sub(_mask_parameter, text)


_PARAMETER = re.compile(r"([?&;#])([^=?&;#]*)=([^&;#]*)")
_SOUNDS_SECRET = re.compile(r"pass|pwd|secret|token|key|auth|cred|sig", re.IGNORECASE)


def _mask_parameter(found: re.Match[str]) -> str:
    secret = _SOUNDS_SECRET.search(unquote(found[2]))
    return f"{found[1]}{found[2]}=***" if secret else found[0]


def setting_types() -> dict[str, Any]:
    """Every setting's name and annotated type, in the order of the reference page."""
    types = {
        name: hint
        for name, hint in get_type_hints(Settings, include_extras=True).items()
        if name not in GROUPS
    }
    for group, struct in GROUPS.items():
        types |= {
            f"{group}.{name}": hint for name, hint in get_type_hints(struct, include_extras=True).items()
        }
    return types


def environment_name(setting: str) -> str:
    return "CHIPS_" + setting.upper().replace(".", "__")


class _Loader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._types = setting_types()
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._problems: list[str] = []

    def load(
        self, flags: Mapping[str, str], config: Path | None, defaults: Mapping[str, str]
    ) -> tuple[Settings, dict[str, str]]:
        self._values["registry"] = default_registry(self._environ)
        for name, text in defaults.items():
            self._take(name, text, "the environment in use")
        self._values["trace.store"] = str(state_folder(self._environ) / "requests.db")
        self._read_file(config)
        self._read_environment()
        for name, text in flags.items():
            self._take(name, text, f"--{name}")
        self._check_networks()
        self._check_trust()
        self._check_origins()
        self._check_auth()
        self._check_shared()
        self._check_registry()
        if self._problems:
            raise SettingsError(self._problems)
        nested: dict[str, Any] = {}
        for name, value in self._values.items():
            group, _, field = name.rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[field] = value
        settings = msgspec.convert(nested, Settings)
        found = find_contradictions(
            settings, on_cloud_run=bool(self._environ.get("K_SERVICE")), given=self._sources
        )
        if found:
            raise SettingsError(found)
        return settings, self._sources

    def _read_file(self, config: Path | None) -> None:
        named = config or (Path(self._environ["CHIPS_CONFIG"]) if self._environ.get("CHIPS_CONFIG") else None)
        path = named or Path("chips.toml")
        if named is None and not path.exists():
            return
        try:
            text = utf8_text(path.read_bytes())
        except OSError as error:
            self._problems.append(f"{path} cannot be read: {error.strerror}")
            return
        except ValueError as error:
            self._problems.append(f"{path} {error}")
            return
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self._problems.append(f"{path} is not valid TOML: {error}")
            return
        for key, value in content.items():
            if key in GROUPS and isinstance(value, dict):
                for field, inner in value.items():
                    self._take(f"{key}.{field}", inner, str(path))
            else:
                self._take(key, value, str(path))

    def _read_environment(self) -> None:
        for name, setting in _PLATFORM_NAMES.items():
            if self._environ.get(name):
                self._take(setting, self._environ[name], f"${name}")
        if self._environ.get("PORT"):  # a container platform: its proxy comes from another address
            self._take("server.host", "0.0.0.0", "$PORT")  # noqa: S104
        if self._environ.get("K_SERVICE"):  # Cloud Run: backends are elsewhere, and want to know who calls
            self._take("upstream.policy", "cloud", "$K_SERVICE")
            self._take("upstream.identity", "google", "$K_SERVICE")
        for name in sorted(self._environ):
            if name.startswith("CHIPS_") and name not in _OTHER_NAMES:
                setting = name.removeprefix("CHIPS_").lower().replace("__", ".")
                self._take(setting, self._environ[name], f"${name}")

    def _take(self, name: str, value: Any, source: str) -> None:
        hint = self._types.get(name)
        if hint is None:
            meant = suggest(name, self._types, cutoff=0.5)
            self._problems.append(f"{name}: there is no such setting (from {source}){meant}")
            return
        try:
            if isinstance(value, str) and _is_list(hint):
                value = _parts(value)
            # Text from the environment becomes a number here; a number in the file must be one.
            converted = msgspec.convert(value, hint, strict=not source.startswith(("$", "--")))
        except msgspec.MsgspecError as error:
            reason = str(error).partition(" - at `")[0]
            self._problems.append(f"{name}: {_shown(value)} will not do: {reason} (from {source})")
            return
        if isinstance(converted, float) and not math.isfinite(converted):
            self._problems.append(f"{name}: {_shown(value)} will not do: it must be finite (from {source})")
            return
        self._values[name] = converted
        self._sources[name] = source

    def _check_networks(self) -> None:
        for name in ("edge.networks", "edge.trusted_proxies", "trace.trusted_networks", "upstream.networks"):
            for network in self._values.get(name, ()):
                try:
                    parse_network(network)
                except ValueError as error:
                    self._problems.append(f"{name}: {error} (from {self._sources[name]})")

    def _check_trust(self) -> None:
        if self._values.get("edge.trusted_hops") and self._values.get("edge.trusted_proxies"):
            self._problems.append("edge: give either trusted_hops or trusted_proxies, not both")

    def _check_origins(self) -> None:
        for origin in self._values.get("edge.cors_origins", ()):
            if origin != ANY:
                source = self._sources["edge.cors_origins"]
                self._problems += [
                    f"edge.cors_origins: {problem} (from {source})" for problem in check_origin(origin)
                ]

    def _check_shared(self) -> None:
        url = self._values.get("limits.redis_url", "")
        if url and not url.startswith(("redis://", "rediss://")):
            self._problems.append(
                f"limits.redis_url: it must begin with redis:// or rediss:// (from {self._sources['limits.redis_url']})"
            )

    def _check_auth(self) -> None:
        issuers: tuple[Issuer, ...] = self._values.get("auth.issuers", ())
        certificates: tuple[Certificate, ...] = self._values.get("auth.certificates", ())
        for issuer in issuers:
            self._problems += [f"auth.issuers: {issuer.name}: {problem}" for problem in check_issuer(issuer)]
        for entry in certificates:
            found = check_certificate(entry)
            self._problems += [f"auth.certificates: {entry.name}: {problem}" for problem in found]
        trusts = self._values.get("edge.trusted_hops") or self._values.get("edge.trusted_proxies")
        if certificates and not trusts:
            self._problems.append(
                "auth.certificates: nobody's headers are believed; set edge.trusted_proxies (or trusted_hops)"
            )
        try:
            validate_chain(self._values.get("auth.chain", Auth().chain))
        except ValueError as error:
            self._problems.append(f"auth.chain: {error} (from {self._sources['auth.chain']})")

    def _check_registry(self) -> None:
        try:
            open_registry(self._values["registry"])
        except ValueError as error:
            self._problems.append(f"registry: {error} (from {self._sources.get('registry', 'default')})")
        try:
            open_fallback(self._values.get("registry_fallback") or "file:/none")
        except ValueError as error:
            self._problems.append(f"registry_fallback: {error} (from {self._sources['registry_fallback']})")


def default_registry(environ: Mapping[str, str]) -> str:
    """A file in the user's data folder, so that `chips register` and `chips serve` meet wherever they are started."""
    base = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "/") / ".local/share")
    return f"sqlite://{Path(base) / 'chips' / 'registry.db'}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _parts(text: str) -> Any:
    """A list from the environment or a flag: parts between commas, or an array in JSON."""
    if text.lstrip().startswith("["):
        return msgspec.json.decode(text.encode("utf-8"))
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_list(hint: Any) -> bool:
    return get_origin(get_args(hint)[0] if get_origin(hint) is Annotated else hint) is tuple


def _flatten(settings: Settings) -> list[tuple[str, Any]]:
    flat = []
    for name in setting_types():
        group, _, field = name.rpartition(".")
        flat.append((name, getattr(getattr(settings, group) if group else settings, field)))
    return flat


def wants_debug() -> bool:
    """Whether commands show where an unexpected error happened."""
    return bool(os.environ.get("CHIPS_DEBUG"))


def process_environment() -> dict[str, str]:
    """The whole environment, for a program that a command starts."""
    return dict(os.environ)


def plain_environment() -> dict[str, str]:
    """The environment without what it says to CHIPS or Vertex AI, for a backend that is given settings of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where the gateway keeps recent requests, and commands what they need to go on after an interruption."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "/") / ".local/state")
    return Path(base) / "chips"


def environments_file() -> Path:
    """Where named environments are described."""
    given = os.environ.get("CHIPS_ENVIRONMENTS")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path(os.environ.get("HOME") or "/") / ".config")
    return Path(base) / "chips" / "environments.toml"


def named_environment() -> str:
    """The environment that CHIPS_ENV names, or nothing."""
    return os.environ.get("CHIPS_ENV", "")


def endpoint_override(service: str) -> str:
    """Another address of a Google API, by the variable that gcloud reads too; for proxies and tests."""
    return os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}", "").rstrip("/")
