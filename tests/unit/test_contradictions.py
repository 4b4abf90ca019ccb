"""Settings that can never be right together, one table; and a walk over all pairs of settings."""

import io
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.core import header_classification
from gateway.settings import SettingsError, load_settings, setting_types
from gateway.telemetry.logs import LogWriter

CLOUD_RUN = {"K_SERVICE": "chips", "GOOGLE_CLOUD_PROJECT": "p"}
CERTIFICATES = json.dumps([{"name": "mesh", "subjects": ["spiffe://acme/*"]}])


def issuer(**changes: Any) -> dict[str, Any]:
    return {
        "name": "acme",
        "issuer": ["https://issuer.example"],
        "jwks": "https://issuer.example/keys",
        "audience": ["us"],
        "subjects": ["*"],
        **changes,
    }


def issuers(*changes: dict[str, Any]) -> str:
    return json.dumps([issuer(**each) for each in changes])


# Settings that cannot be right, on Cloud Run or elsewhere; what the reason says; and the change that makes them right.
ROWS: list[tuple[str, dict[str, str], dict[str, str], str, dict[str, str]]] = [
    (
        "certificates-behind-one-hop",
        CLOUD_RUN,
        {"auth.certificates": CERTIFICATES, "edge.trusted_hops": "1"},
        "trusted_hops = 2",
        {"edge.trusted_hops": "2"},
    ),
    (
        "no-hops-on-cloud-run",
        CLOUD_RUN,
        {"edge.networks": "192.0.2.0/24"},
        "Google's own",
        {"edge.trusted_hops": "1"},
    ),
    ("no-networks-on-cloud-run", CLOUD_RUN, {}, "Google's own", {"edge.networks": "0.0.0.0/0"}),
    (
        "everybody-a-proxy",
        {},
        {"edge.trusted_proxies": "0.0.0.0/0"},
        "all addresses",
        {"edge.trusted_proxies": "10.0.0.0/8"},
    ),
    (
        "everybody-in-halves",
        {},
        {"edge.trusted_proxies": "0.0.0.0/1,128.0.0.0/1"},
        "all addresses",
        {"edge.trusted_proxies": "0.0.0.0/1"},
    ),
    (
        "everybody-of-six",
        {},
        {"edge.trusted_proxies": "::/0"},
        "all addresses",
        {"edge.trusted_proxies": "2001:db8::/32"},
    ),
    (
        "a-header-of-nobody",
        {},
        {"edge.forwarding_header": "forwarded"},
        "nobody's headers",
        {"edge.trusted_proxies": "10.0.0.0/8"},
    ),
    (
        "issuers-not-asked",
        {},
        {"auth.issuers": issuers({}), "auth.chain": "api-key"},
        'add "token" to auth.chain',
        {"auth.chain": "api-key,token"},
    ),
    (
        "certificates-not-asked",
        {},
        {"auth.certificates": CERTIFICATES, "auth.chain": "api-key", "edge.trusted_proxies": "10.0.0.0/8"},
        'add "certificate" to auth.chain',
        {"auth.chain": "api-key,certificate"},
    ),
    (
        "no-verbs",
        {},
        {"auth.issuers": issuers({"verbs": []})},
        "allows nothing",
        {"auth.issuers": issuers({})},
    ),
    (
        "one-name-for-two-issuers",
        {},
        {"auth.issuers": issuers({}, {"issuer": ["https://other.example"]})},
        "a name of its own",
        {"auth.issuers": issuers({}, {"issuer": ["https://other.example"], "name": "other"})},
    ),
    (
        "one-name-for-an-issuer-and-certificates",
        {},
        {
            "auth.issuers": issuers({"name": "mesh"}),
            "auth.certificates": CERTIFICATES,
            "edge.trusted_hops": "2",
        },
        "a name of its own",
        {"auth.issuers": issuers({})},
    ),
    *(
        (
            f"issuer-in-{header}",
            {},
            {"auth.issuers": issuers({"header": header})},
            "another meaning",
            {"auth.issuers": issuers({"header": "x-proxy-assertion"})},
        )
        for header in (
            *("x-api-key", "host", "connection", "content-length", "transfer-encoding", "origin", "te"),
            *("x-forwarded-for", "forwarded", "x-request-id", "content-type", "cookie", "upgrade"),
            "x-chips-caller",
        )
    ),
    *(
        (
            f"certificate-in-{header}",
            {},
            {"auth.certificates": CERTIFICATES, "edge.trusted_hops": "2", name: header},
            why,
            {name: "x-spiffe"},
        )
        for name in ("auth.certificate_header", "auth.certificate_verified_header")
        for header, why in (
            ("Authorization", "another meaning"),
            ("Host", "another meaning"),
            ("a header", "not the name of a header"),
            ("ümlaut", "not the name of a header"),
            ("", "not the name of a header"),
        )
    ),
    (
        "one-header-for-both",
        {},
        {
            "auth.certificates": CERTIFICATES,
            "edge.trusted_hops": "2",
            "auth.certificate_verified_header": "X-Client-Cert-Spiffe-Id",
        },
        "already",
        {"auth.certificate_verified_header": "x-ok"},
    ),
    (
        "a-token-in-the-certificates-header",
        {},
        {
            "auth.certificates": CERTIFICATES,
            "edge.trusted_hops": "2",
            "auth.issuers": issuers({"header": "x-client-cert-spiffe-id"}),
        },
        "use another one",
        {"auth.issuers": issuers({})},
    ),
    (
        "hosts-without-a-policy",
        {},
        {"upstream.hosts": "wine.example.com", "upstream.policy": "local"},
        "keep nobody out",
        {"upstream.policy": "cloud"},
    ),
    *(
        (
            f"hosts-{number}",
            {},
            {"upstream.hosts": host, "upstream.policy": "cloud"},
            "not the name of a host",
            {"upstream.hosts": "*.example.com"},
        )
        for number, host in enumerate(
            ("https://wine.example.com", "wine.example.com/x", "wine.example.com:8080", "a b")
        )
    ),
    *(
        (
            f"anybodys-hosts-{number}",
            {},
            {"upstream.hosts": host, "upstream.policy": "cloud", "upstream.identity": "google"},
            "anybody can have such a host",
            {"upstream.hosts": "wine-abc.a.run.app"},
        )
        for number, host in enumerate(("*", "*.run.app", "*.app", "*.A.run.app"))
    ),
    (
        "metadata-by-url",
        {},
        {"upstream.identity": "google", "upstream.metadata_host": "http://metadata"},
        "is not a host",
        {"upstream.metadata_host": "127.0.0.1:8080"},
    ),
    (
        "keys-that-sign-nothing",
        {},
        {"upstream.signing_keys": "/a.pem"},
        "nothing is signed",
        {"upstream.sign_callers": "true"},
    ),
    ("no-store", {}, {"trace.store": ""}, "or write off", {"trace.store": "off"}),
    (
        "the-copy-over-the-registry",
        {},
        {"registry": "sqlite:///a/registry.db", "registry_fallback": "file:/a/registry.db"},
        "would be overwritten",
        {"registry_fallback": "file:/a/copy.gz"},
    ),
    (
        "the-store-in-the-registry",
        {},
        {"registry": "sqlite:registry.db", "trace.store": "registry.db"},
        "would be overwritten",
        {"trace.store": "requests.db"},
    ),
    (
        "the-store-in-the-copy",
        {},
        {"registry_fallback": "file:/a/b", "trace.store": "/a/b"},
        "would be overwritten",
        {"trace.store": "off"},
    ),
    ("traces-of-no-project", {}, {"trace.exporter": "cloud-trace"}, "the project", {"log.project": "p"}),
    *(
        (
            f"collector-{number}",
            {},
            {"trace.exporter": "otlp", "trace.otlp_endpoint": url},
            "base URL of a collector",
            {"trace.otlp_endpoint": "http://localhost:4318"},
        )
        for number, url in enumerate(
            ("localhost:4318", "grpc://x:1", "http://", "", "http://[::1", "http://x:99999")
        )
    ),
    (
        "metrics-collector",
        {},
        {"metrics.exporter": "otlp", "metrics.otlp_endpoint": "x"},
        "metrics.otlp_endpoint",
        {"metrics.otlp_endpoint": "https://x"},
    ),
    (
        "a-stop-that-is-cut-off",
        CLOUD_RUN,
        {"server.stop_grace_s": "30", "edge.trusted_hops": "1"},
        "below",
        {"server.stop_grace_s": "8"},
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("environ", "flags", "why", "cure"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_what_can_never_be_right_is_refused_with_its_reason(
    environ: dict[str, str], flags: dict[str, str], why: str, cure: dict[str, str]
):
    with pytest.raises(SettingsError) as caught:
        load_settings(flags=flags, environ=environ)
    assert why in str(caught.value)
    load_settings(flags={**flags, **cure}, environ=environ)


SAMPLES = {
    "auth.issuers": issuers({}, {"name": "proxy", "header": "x-proxy-assertion"}),
    "auth.certificates": CERTIFICATES,
    "auth.chain": "token,certificate",
    "auth.certificate_header": "x-spiffe",
    "auth.certificate_verified_header": "x-ok",
    "edge.networks": "192.0.2.0/24",
    "edge.trusted_hops": "1",
    "edge.trusted_proxies": "10.0.0.0/8",
    "edge.forwarding_header": "forwarded",
    "edge.cors_origins": "https://app.example.com",
    "edge.report_only": "true",
    "limits.redis_url": "redis://127.0.0.1:1",
    "limits.report_only": "true",
    "log.project": "p",
    "metrics.exporter": "otlp",
    "registry": "memory://x",
    "registry_fallback": "file:/tmp/none/copy.gz",
    "server.path": "plain",
    "server.workers": "2",
    "trace.exporter": "cloud-trace",
    "trace.store": "off",
    "trace.trusted_networks": "10.0.0.0/8",
    "upstream.hosts": "*.example.com",
    "upstream.identity": "google",
    "upstream.metadata_host": "127.0.0.1:1",
    "upstream.networks": "10.0.0.0/8",
    "upstream.policy": "local",
    "upstream.sign_callers": "true",
}


@pytest.mark.parametrize("environ", [{}, CLOUD_RUN], ids=["here", "cloud-run"])
def test_each_pair_is_taken_or_refused_by_name(environ: dict[str, str]):
    """What is refused is told by a setting of the pair, or by one that it lacks."""
    assert SAMPLES.keys() <= setting_types().keys()
    base = {"edge.trusted_hops": "1"} if environ else {}
    refused = 0
    for pair in combinations(SAMPLES.items(), 2):
        flags = {**base, **dict(pair)}
        for problem in refusals(flags, environ):
            refused += 1
            named = problem.partition(":")[0]
            assert any(name.startswith(named) for name in flags), (flags, problem)
    assert refused > 50


def refusals(flags: dict[str, str], environ: dict[str, str]) -> list[str]:
    try:
        load_settings(flags=flags, environ=environ)
    except SettingsError as error:
        return error.problems
    return []


def test_what_is_taken_makes_a_gateway(monkeypatch: pytest.MonkeyPatch):
    """Each sample alone, with what it needs, so that nothing is left to be found out by the first request."""
    monkeypatch.setattr(header_classification, "_KIND", dict(header_classification._KIND))
    monkeypatch.setattr(header_classification, "_blank", list(header_classification._blank))
    needs = {
        "auth.certificates": {"edge.trusted_hops": "2"},
        "edge.forwarding_header": {"edge.trusted_hops": "1"},
        "trace.exporter": {"log.project": "p"},
    }
    for name, value in SAMPLES.items():
        settings = load_settings(flags={"trace.store": "off", name: value, **needs.get(name, {})}, environ={})
        Gateway(settings, LogWriter(io.TextIOWrapper(io.BytesIO())))
    header_classification._learned.clear()
