"""Find settings that contradict each other.

Each is valid by itself; the gateway refuses to start with them together. What merely has no effect is left alone,
unless somebody would rely on it.
"""

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import combinations
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from gateway.auth.authenticator_plugins import CERTIFICATE, TOKEN
from gateway.core.header_classification import FIELDS_IN_USE
from gateway.core.ip_network_set import parse_network
from gateway.core.token_and_certificate_rules import apply_preset
from gateway.settings.groups import Settings

_HEADER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_HOST_AND_PORT: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HOST_PATTERN: Final = re.compile(r"[a-z0-9.*?_\[\]!-]+")
_ANYBODYS_HOST: Final = "stranger-abc123-ew.a.run.app"  # anybody can have one like it
_CLOUD_RUN_STOP_S: Final = 10.0


def find_contradictions(settings: Settings, *, on_cloud_run: bool, given: Collection[str]) -> list[str]:
    """Find settings that contradict each other.

    There is a sentence for each. `given` are the names of the settings that somebody gave.
    """
    return [
        *_of_trust(settings, on_cloud_run),
        *_of_credentials(settings),
        *_of_headers(settings),
        *_of_backends(settings, given),
        *_of_files(settings),
        *_of_telemetry(settings),
        *_of_processes(settings, on_cloud_run),
        *_of_audit(settings),
    ]


def _of_trust(settings: Settings, on_cloud_run: bool) -> Iterator[str]:  # noqa: FBT001
    edge = settings.edge
    trusts = bool(edge.trusted_hops or edge.trusted_proxies)
    if on_cloud_run and settings.auth.certificates and edge.trusted_hops == 1:
        yield (
            "auth.certificates: with edge.trusted_hops = 1 on Cloud Run ($K_SERVICE) nobody stands in front who checks "
            "certificates and replaces the headers that tell of them, so every caller could write them; use a load "
            "balancer and trusted_hops = 2 (docs/threat-model.md)"
        )
    if on_cloud_run and not trusts and not _cover_everybody(edge.networks):
        yield (
            "edge.trusted_hops: on Cloud Run ($K_SERVICE) every request comes from Google's own addresses, so that "
            "edge.networks would mean everybody or nobody; set it to 1, or to 2 behind a load balancer"
        )
    if _cover_everybody(edge.trusted_proxies, of_one_version=True):
        yield (
            "edge.trusted_proxies: they are all addresses there are, so every caller could write the address that it "
            "is taken for; name the networks of your proxies"
        )
    if edge.forwarding_header == "forwarded" and not trusts:
        yield "edge.forwarding_header: nobody's headers are believed; set edge.trusted_proxies (or trusted_hops)"


def _cover_everybody(networks: Collection[str], *, of_one_version: bool = False) -> bool:
    parsed = [parse_network(network) for network in networks]
    four = [network for network in parsed if isinstance(network, IPv4Network)]
    six = [network for network in parsed if isinstance(network, IPv6Network)]
    covered = [
        any(network.prefixlen == 0 for network in collapse_addresses(four)),
        any(network.prefixlen == 0 for network in collapse_addresses(six)),
    ]
    return any(covered) if of_one_version else covered[0]


def _of_credentials(settings: Settings) -> Iterator[str]:
    auth = settings.auth
    for kind, name, entries in (
        (TOKEN, "auth.issuers", auth.issuers),
        (CERTIFICATE, "auth.certificates", auth.certificates),
    ):
        if entries and kind not in auth.chain:
            yield f'{name}: none of them would ever be asked; add "{kind}" to auth.chain'
        for entry in entries:
            if not entry.verbs:
                yield f"{name}: {entry.name}: it allows nothing; give it verbs"
    issuers = [(entry.name, apply_preset(entry).issuer) for entry in auth.issuers]
    vouchers = issuers + [(entry.name, ("certificates",)) for entry in auth.certificates]
    for (name, one), (other, another) in combinations(vouchers, 2):
        if name == other and not set(one) & set(another):
            yield (
                f"auth: {name}: entries for different issuers have this name, so two callers would be one "
                f"({name}:SUBJECT) in logs, limits and for backends; give each a name of its own"
            )


def _of_headers(settings: Settings) -> Iterator[str]:
    auth = settings.auth
    for entry in auth.issuers:
        header = apply_preset(entry).header
        if header != "authorization":
            yield from _problems_of_header(f"auth.issuers: {entry.name}", header)
    if not auth.certificates:
        return
    identity, verified = auth.certificate_header.lower(), auth.certificate_verified_header.lower()
    yield from _problems_of_header("auth.certificate_header", identity)
    yield from _problems_of_header("auth.certificate_verified_header", verified)
    if identity == verified:
        yield f"auth.certificate_verified_header: {verified} is the certificate_header already; no certificate is called true"
    for entry in auth.issuers:
        if apply_preset(entry).header in {identity, verified}:
            yield f"auth.issuers: {entry.name}: its header is one of those that tell of certificates; use another one"


def _problems_of_header(whose: str, header: str) -> Iterator[str]:
    if not _HEADER.fullmatch(header):
        yield f"{whose}: {header[:80]!r} is not the name of a header"
    elif header in FIELDS_IN_USE or header.startswith("x-chips-"):
        yield f"{whose}: the header {header} has another meaning and cannot carry a credential; use one of its own"


def _of_backends(settings: Settings, given: Collection[str]) -> Iterator[str]:
    upstream = settings.upstream
    for host in upstream.hosts:
        if not _HOST_PATTERN.fullmatch(host.lower()):
            yield f"upstream.hosts: {host[:80]!r} is not the name of a host, such as wine.example.com or *.example.com"
        elif upstream.identity == "google" and fnmatchcase(_ANYBODYS_HOST, host.lower()):
            yield (
                f"upstream.hosts: {host}: anybody can have such a host, and could be sent ID tokens that are good at "
                "somebody else's; name your own hosts (*.run.app is allowed without it)"
            )
    if upstream.hosts and upstream.policy == "local" and "upstream.policy" in given:
        yield "upstream.hosts: with upstream.policy = local they keep nobody out; set the policy to cloud, or drop them"
    if upstream.identity == "google" and not _HOST_AND_PORT.fullmatch(upstream.metadata_host):
        yield f"upstream.metadata_host: {upstream.metadata_host[:80]!r} is not a host, with or without :port"
    if upstream.signing_keys and not upstream.sign_callers:
        yield "upstream.signing_keys: nothing is signed; set upstream.sign_callers = true, or drop them"


def _of_files(settings: Settings) -> Iterator[str]:
    if not settings.trace.store:
        yield "trace.store: name a file, or write off"
    files = {
        "registry": _file_of(settings.registry, "sqlite"),
        "registry_fallback": _file_of(settings.registry_fallback, "file"),
        "trace.store": None if settings.trace.store in {"", "off"} else Path(settings.trace.store).absolute(),
    }
    for (one, first), (other, second) in combinations(files.items(), 2):
        if first is not None and first == second:
            yield f"{other}: {second} is what {one} names already, and would be overwritten; name another file"


def _file_of(url: str, scheme: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)).absolute() if parts.scheme == scheme and parts.path else None


def _of_telemetry(settings: Settings) -> Iterator[str]:
    trace, metrics = settings.trace, settings.metrics
    if trace.exporter == "cloud-trace" and not settings.log.project:
        yield "trace.exporter: cloud-trace needs to know the project; set log.project or GOOGLE_CLOUD_PROJECT"
    if trace.exporter == "otlp":
        yield from _problems_of_endpoint("trace.otlp_endpoint", trace.otlp_endpoint)
    if metrics.exporter == "otlp":
        name = "metrics.otlp_endpoint" if metrics.otlp_endpoint else "trace.otlp_endpoint"
        yield from _problems_of_endpoint(name, metrics.otlp_endpoint or trace.otlp_endpoint)


def _problems_of_endpoint(name: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        bare = not parts.query and not parts.fragment
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and bare
    except ValueError:
        good = False
    if not good:
        yield f"{name}: it is not the base URL of a collector, such as http://localhost:4318"


def _of_processes(settings: Settings, on_cloud_run: bool) -> Iterator[str]:  # noqa: FBT001
    server = settings.server
    if on_cloud_run and server.stop_grace_s >= _CLOUD_RUN_STOP_S:
        yield (
            f"server.stop_grace_s: Cloud Run ($K_SERVICE) ends a container {_CLOUD_RUN_STOP_S:g} s after it is told to "
            "stop, in the middle of the answers that are waited for; set it below"
        )


def _of_audit(settings: Settings) -> Iterator[str]:
    audit = settings.audit
    if audit.signing_key and not audit.second_place:
        yield "audit.signing_key: nothing is signed; set audit.second_place, or drop it"
    if audit.second_place and not audit.signing_key and not audit.trusted_keys:
        yield (
            "audit.second_place: nobody signs what is written there, and no signature could be checked; set "
            "audit.signing_key to write, or audit.trusted_keys to check"
        )
