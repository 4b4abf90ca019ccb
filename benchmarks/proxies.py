"""The proxies that are compared, and how each is started: one Peer for each, with its configuration from benchmarks/peers."""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


PORT = 18080


BACKEND = 18090


SECURE = 18443


class RunFiles(NamedTuple):
    """Where one run keeps its files, and what it is given."""

    work: Path
    key: str
    envoy: str
    routers: str = ""  # what the names of the routers' virtual environments begin with


class Peer(NamedTuple):
    name: str
    command: list[str]
    environment: dict[str, str]
    about: str
    cases: tuple[str, ...] = ()  # none: all
    patience_s: float = 30.0  # until its first answer
    least_s: int = 1  # of load before it is measured, and while it is: some take long to settle


ROUTERS = ("litellm", "ray", "bentoml")


NAMES = (
    *("chips", "chips untraced", "chips plain", "chips 10k", "textbook"),
    *("nginx", "haproxy", "caddy", "envoy", "envoy untraced", *ROUTERS),
)


def absent(envoy: str, routers: str) -> dict[str, str]:
    """Why a peer cannot be measured here, by its name."""
    reasons = {}
    for name in ("nginx", "haproxy", "caddy"):
        if not shutil.which(name):
            reasons[name] = f"{name} is not installed (Debian: apt install {name})"
    if not envoy or not Path(envoy).is_file():
        where = f"{envoy} is not there" if envoy else "no --envoy given"
        reasons |= dict.fromkeys(("envoy", "envoy untraced"), f"{where}; `make bench` installs it")
    for name in ROUTERS:
        if not Path(f"{routers}-{name}/bin/python").is_file():
            reasons[name] = f"there is no {routers}-{name}; `make bench` makes it"
    return reasons


def render(place: RunFiles, name: str, **more: str) -> Path:
    text = (HERE / "peers" / name).read_text()
    values = {
        "WORK": str(place.work),
        "KEY": place.key,
        "PORT": str(PORT),
        "BACKEND": str(BACKEND),
        "SECURE": str(SECURE),
    }
    for word, value in {**values, "KILOBYTE": "x" * 1024, **more}.items():
        text = text.replace(f"@{word}@", value)
    target = place.work / (more.get("AS") or name)
    target.write_text(text)
    return target


_TRACING = """          tracing:
            random_sampling: {value: 1.0}
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                grpc_service: {envoy_grpc: {cluster_name: collector}, timeout: 1s}
                service_name: envoy"""


_COLLECTOR = """  - name: collector
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: collector, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}"""


def gateway(place: RunFiles, name: str, about: str, registry: str = "small", **settings: str) -> Peer:
    flags = {
        "registry": f"sqlite://{place.work}/{registry}.db",
        "server.host": "127.0.0.1",
        "server.port": str(PORT),
        "server.workers": "1",
        "edge.networks": "127.0.0.0/8,203.0.113.0/24,10.0.0.0/8",
        "edge.trusted_hops": "1",
        "upstream.ca_file": f"{place.work}/cert.pem",
        "log.format": "json",
        "trace.store": f"{place.work}/{name.replace(' ', '-')}-store.db",
        **settings,
    }
    return Peer(
        name,
        [sys.executable, "-m", "gateway", *(f"--{flag}={value}" for flag, value in flags.items())],
        {},
        about,
    )


def peers(place: RunFiles) -> dict[str, Peer]:
    """Every proxy that can be started here, by its name."""
    found = [*_own(place), *_classical(place), *_envoys(place), *_routers(place)]
    return {peer.name: peer for peer in found}


def _own(place: RunFiles) -> list[Peer]:
    return [
        gateway(place, "chips", "this gateway, pure Python: every duty, 1 % of traces kept"),
        gateway(
            place,
            "chips untraced",
            "the same, no trace kept but of what fails or is slow",
            **{"trace.ratio": "0"},
        )._replace(cases=("1k",)),
        gateway(place, "chips plain", "the same duties on aiohttp's public API", **{"server.path": "plain"}),
        gateway(
            place, "chips 10k", "10 000 models and 100 000 keys in the registry", registry="large"
        )._replace(cases=("1k",)),
        Peer(
            "textbook",
            [
                sys.executable,
                "-m",
                "benchmarks.textbook",
                str(PORT),
                f"http://127.0.0.1:{BACKEND}",
                f"https://localhost:{SECURE}",
                place.key,
                f"{place.work}/cert.pem",
            ],
            {},
            "aiohttp application, middlewares, ClientSession",
        ),
    ]


def _classical(place: RunFiles) -> list[Peer]:
    found = []
    if shutil.which("nginx"):
        found.append(
            Peer(
                "nginx",
                ["nginx", "-p", str(place.work), "-c", str(render(place, "nginx.conf"))],
                {},
                "nginx, the same duties",
            )
        )
    if shutil.which("haproxy"):
        (place.work / "haproxy.keys").write_text(place.key + "\n")
        found.append(
            Peer(
                "haproxy",
                ["haproxy", "-db", "-f", str(render(place, "haproxy.cfg"))],
                {},
                "HAProxy, the same duties",
            )
        )
    if shutil.which("caddy"):
        caddyfile = str(render(place, "Caddyfile"))
        found.append(
            Peer(
                "caddy",
                ["caddy", "run", "--config", caddyfile, "--adapter", "caddyfile"],
                {"GOMAXPROCS": "1", "XDG_CONFIG_HOME": str(place.work), "XDG_DATA_HOME": str(place.work)},
                "Caddy, the same duties",
            )
        )
    return found


def _envoys(place: RunFiles) -> list[Peer]:
    found = []
    if place.envoy:
        for name, tracing, about in (
            ("envoy", True, "Envoy, the same duties, 1 % of traces sampled"),
            ("envoy untraced", False, "Envoy, the same duties, no tracing"),
        ):
            config = render(
                place,
                "envoy.yaml",
                AS=f"{name.replace(' ', '-')}.yaml",
                TRACING=_TRACING if tracing else "",
                COLLECTOR=_COLLECTOR if tracing else "",
            )
            found.append(
                Peer(
                    name,
                    [
                        place.envoy,
                        "-c",
                        str(config),
                        "--concurrency",
                        "1",
                        "-l",
                        "error",
                        "--disable-hot-restart",
                        "--base-id",
                        "9",
                    ],
                    {},
                    about,
                )
            )
    return found


def _routers(place: RunFiles) -> list[Peer]:
    """Python programs that others take for a gateway to models. They do less than the rest, as `about` says."""
    here, found = str(HERE / "peers"), []
    programs = {name: Path(f"{place.routers}-{name}/bin").absolute() for name in ROUTERS}
    if programs["litellm"].is_dir():
        config = str(render(place, "litellm.yaml"))
        command = [f"{programs['litellm']}/litellm", "--config", config, "--host", "127.0.0.1"]
        found.append(
            Peer(
                "litellm",
                [*command, "--port", str(PORT), "--num_workers", "1"],
                {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
                "LiteLLM's proxy with a pass-through endpoint: its master key, its own accounts; no allowlist",
                cases=("1k",),
                patience_s=180,
                least_s=5,
            )
        )
    if programs["ray"].is_dir():
        found.append(
            Peer(
                "ray",
                [f"{programs['ray']}/python", f"{here}/ray_router.py", str(PORT), str(BACKEND), place.key],
                {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
                "Ray Serve's proxy and a deployment with a ClientSession: a key, a request id; no allowlist, no log line",
                cases=("1k",),
                patience_s=180,
                least_s=5,
            )
        )
    if programs["bentoml"].is_dir():
        command = [f"{programs['bentoml']}/bentoml", "serve", "bento_router:Router", "--working-dir", here]
        found.append(
            Peer(
                "bentoml",
                [*command, "--host", "127.0.0.1", "--port", str(PORT)],
                {"BENTOML_DO_NOT_TRACK": "True", "API_KEY": place.key, "BACKEND_PORT": str(BACKEND)},
                "a BentoML service that forwards by httpx: a key, a request id, a log line; no allowlist",
                cases=("1k",),
                patience_s=180,
                least_s=5,
            )
        )
    return found
