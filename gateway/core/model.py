"""A model as the registry keeps it, with its backends and its policy.

Its document is parsed and validated here.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from gateway.core.ip_network_set import parse_network
from gateway.core.model_cors_policy import CorsRule, cors_problems
from gateway.core.name_validation import check_model_name, check_version
from gateway.core.sticky_shares import StickyShares, sticky_problems

DEFAULT_TIMEOUT_S = 60.0
MAX_TIMEOUT_S = 3600.0  # Cloud Run's longest
MAX_REQUESTS_PER_S = 10_000.0
MAX_CPU = 256.0
MAX_MEMORY_GIB = 4096.0
MAX_INSTANCES = 10_000


class Tensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of a model. Its fields are as in the Open Inference Protocol; -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The policy of a model: how it may be called. It covers access, networks, limits, time-out and CORS."""

    access: Literal["key", "public"] = "key"
    timeout_s: float = DEFAULT_TIMEOUT_S
    body_limit_bytes: int | None = None  # None: the gateway's own limit
    max_in_flight: int | None = None  # requests at the backend at once; None: the gateway's default
    networks: tuple[str, ...] = ()  # where callers must be, besides being admitted; none: wherever those are
    cors: dict[str, CorsRule] = {}  # by origin, or "*"
    requests_per_s: float | None = None
    burst: int | None = None  # requests at once after a pause; None: what one second allows
    requests_per_day: int | None = None
    requests_per_month: int | None = None
    # Predicting changes nothing: a POST may be sent again, after a lost connection or for a shadow. None: not said; False: it does,
    # whatever artifacts declare.
    pure: bool | None = None
    trace_ratio: float | None = None  # share of traces kept; None: the gateway's default
    availability: float | None = None  # objective: share of requests that do not fail, such as 0.999
    latency_s: float | None = None  # objective: 99 % are answered within this time


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The resources of one instance of a backend. They are its CPU and memory, and how many instances are kept warm."""

    cpu: float = 1.0
    memory_gib: float = 1.0
    min_instances: int = 0


class Backend(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deployed backend that serves one version of one model."""

    version: str
    url: str  # http(s)://host[:port][/base], no trailing slash
    predict_path: str = "/predict"
    concurrency: int | None = None  # predictions one instance truly runs at once, as it declares
    platform: str = ""
    artifact: str = ""
    artifact_digest: str = ""
    image: str = ""  # by its digest: …@sha256:…; empty where a platform needs none
    resources: Resources | None = None  # None: not declared, so its cost is estimated by the default size
    audience: str = ""  # what ID tokens for it are made for; empty: the origin of its URL
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A registered model, with its backends, policy and traffic.

    Callers name it in the path. `traffic` is in percent by version.
    """

    name: str
    description: str = ""
    owner: str = ""
    enabled: bool = True
    policy: Policy = Policy()
    backends: tuple[Backend, ...] = ()
    traffic: dict[str, int] = {}
    sticky: StickyShares | None = None  # None: each request is drawn by itself

    def backend(self, version: str) -> Backend | None:
        return next((backend for backend in self.backends if backend.version == version), None)


def parse_model(document: Mapping[str, Any]) -> Model:
    """Parse a model's registry document. Fields of a newer release are ignored; ValueError lists everything that is wrong."""
    try:
        model = msgspec.convert(document, Model)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    problems = model_problems(model)
    if problems:
        raise ValueError("; ".join(problems))
    return model


def model_problems(model: Model) -> list[str]:
    """Everything that is wrong with `model`, a sentence each."""
    problems = []
    try:
        check_model_name(model.name)
    except ValueError as error:
        problems.append(str(error))
    versions = [backend.version for backend in model.backends]
    problems += [
        f"version {v} is listed twice" for v in sorted({v for v in versions if versions.count(v) > 1})
    ]
    for backend in model.backends:
        problems += [f"version {backend.version}: {problem}" for problem in backend_problems(backend)]
    problems += _check_traffic(model.traffic, versions)
    if model.sticky is not None:
        problems += sticky_problems(model.sticky)
    policy = model.policy
    if not 0 < policy.timeout_s <= MAX_TIMEOUT_S:
        problems.append(f"the time-out must lie between 0 and {MAX_TIMEOUT_S:.0f} seconds")
    if policy.body_limit_bytes is not None and policy.body_limit_bytes < 1:
        problems.append("the body limit must be at least one byte")
    problems += cors_problems(policy.cors)
    problems += network_and_quota_problems(policy)
    if policy.trace_ratio is not None and not 0 <= policy.trace_ratio <= 1:
        problems.append("the share of traces kept must lie between 0 and 1")
    if policy.availability is not None and not 0 < policy.availability < 1:
        problems.append("the availability objective must lie between 0 and 1, such as 0.999")
    if policy.latency_s is not None and not 0 < policy.latency_s <= MAX_TIMEOUT_S:
        problems.append("the latency objective must be a number of seconds above 0")
    return problems


class NetworksAndQuotas(Protocol):
    """The networks and quotas that policies, keys and access rules have in common."""

    @property
    def networks(self) -> tuple[str, ...]: ...
    @property
    def requests_per_s(self) -> float | None: ...
    @property
    def burst(self) -> int | None: ...
    @property
    def max_in_flight(self) -> int | None: ...
    @property
    def requests_per_day(self) -> int | None: ...
    @property
    def requests_per_month(self) -> int | None: ...


def network_and_quota_problems(limits: NetworksAndQuotas) -> list[str]:
    """Everything that is wrong with the networks and quotas of `limits`, a sentence each."""
    problems = []
    for network in limits.networks:
        try:
            parse_network(network)
        except ValueError as error:
            problems.append(str(error))
    if limits.requests_per_s is not None and not 0 < limits.requests_per_s <= MAX_REQUESTS_PER_S:
        problems.append(f"the rate must lie between 0 and {MAX_REQUESTS_PER_S:g} requests per second")
    if limits.burst is not None and limits.requests_per_s is None:
        problems.append("a burst needs a rate to go with")
    for what, number in (
        ("the burst", limits.burst),
        ("the requests in flight", limits.max_in_flight),
        ("the requests per day", limits.requests_per_day),
        ("the requests per month", limits.requests_per_month),
    ):
        if number is not None and number < 1:
            problems.append(f"{what} must be at least 1")
    return problems


def _check_traffic(traffic: Mapping[str, int], versions: list[str]) -> list[str]:
    problems = [f"traffic goes to version {v}, which has no backend" for v in traffic if v not in versions]
    problems += [f"version {v}: {p} is not a percentage" for v, p in traffic.items() if not 0 <= p <= 100]
    total = sum(traffic.values())
    if versions and total != 100:
        problems.append(f"traffic adds up to {total} %, not 100 %")
    return problems


def backend_problems(backend: Backend) -> list[str]:
    """Everything that is wrong with a backend's document, a sentence each."""
    problems = []
    try:
        check_version(backend.version)
    except ValueError as error:
        problems.append(str(error))
    try:
        if check_backend_url(backend.url) != backend.url:
            problems.append("the URL must not end in /")
    except ValueError as error:
        problems.append(str(error))
    if backend.predict_path != "/" and not _BACKEND_PATH.fullmatch(backend.predict_path):
        problems.append(f"the predict path {backend.predict_path!r} is not a plain path such as /predict")
    if backend.concurrency is not None and backend.concurrency < 1:
        problems.append("the concurrency must be at least 1")
    if backend.resources is not None:
        problems += resource_problems(backend.resources)
    if not _AUDIENCE.fullmatch(backend.audience):
        problems.append(
            "the audience must be at most 500 visible characters, such as https://wine.example.com"
        )
    return problems


def resource_problems(resources: Resources) -> list[str]:
    """Everything that is wrong with `resources`, a sentence each."""
    problems = []
    if not 0 < resources.cpu <= MAX_CPU:
        problems.append(f"the processors of an instance must lie between 0 and {MAX_CPU:g}")
    if not 0 < resources.memory_gib <= MAX_MEMORY_GIB:
        problems.append(f"the memory of an instance must lie between 0 and {MAX_MEMORY_GIB:g} GiB")
    if not 0 <= resources.min_instances <= MAX_INSTANCES:
        problems.append(f"the instances that are kept warm must lie between 0 and {MAX_INSTANCES}")
    return problems


_BACKEND_PATH = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)+/?")
_AUDIENCE = re.compile(r"[!-~]{0,500}")
_VISIBLE_ASCII = re.compile(r"[!-~]*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\]")


def check_backend_url(url: str) -> str:
    """Check a backend's URL and return it without its trailing slash. ValueError says what is wrong."""
    shown = repr(url[:200])
    if not _VISIBLE_ASCII.fullmatch(url):  # urlsplit would drop white space and line ends without a word
        raise ValueError(f"{shown} holds a character that no address holds")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{shown} is not an address: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"{shown} must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a backend's address must not hold a user name or a password")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError(f"{shown} must end with the path: no query, no fragment")
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    if port == 0 or not _HOST.fullmatch(host):
        raise ValueError(f"{shown} does not name a host")
    if parts.path not in {"", "/"} and not _BACKEND_PATH.fullmatch(parts.path):
        raise ValueError(f"{shown} has a path that is not plain")
    return url.rstrip("/")
