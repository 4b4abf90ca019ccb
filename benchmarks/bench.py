"""Starts each proxy on a CPU of its own, loads it from another, and counts what it spent.

The figure of record is CPU microseconds per request of the proxy's process tree, by the scheduler's accounting. Rounds are
interleaved, so that what the machine does meanwhile hits all alike; the tables show medians.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, report, start

HERE = Path(__file__).parent
PROXY_CPU, LOAD_CPU = 0, 1
PORT, BACKEND, SECURE = 18080, 18090, 18443


class Case(NamedTuple):
    path: str
    up: int
    down: int
    connections: int = 32
    about: str = ""


CASES = {
    "1k": Case("/m1k", 1024, 1024, about="1 KB up, 1 KB down"),
    "100k-up": Case("/m1k", 102_400, 1024, about="100 KB up, 1 KB down"),
    "100k-down": Case("/m100k", 1024, 102_400, about="1 KB up, 100 KB down"),
    "1m-up": Case("/m1k", 1_048_576, 1024, about="1 MB up, 1 KB down"),
    "1m-down": Case("/m1m", 1024, 1_048_576, about="1 KB up, 1 MB down"),
    "chunked": Case("/c100k", 1024, 102_400, about="1 KB up, 100 KB down in chunks"),
    "stream": Case("/events", 1024, 1000, about="ten small chunks down"),
    "tls": Case("/tls", 1024, 1024, about="1 KB each way, https to the backend"),
    "c256": Case("/m1k", 1024, 1024, 256, about="1 KB each way, 256 connections"),
    "c512": Case("/m1k", 1024, 1024, 512, about="1 KB each way, 512 connections"),
}


class FirestoreLocation(NamedTuple):
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


def render(place: FirestoreLocation, name: str, **more: str) -> Path:
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


def gateway(
    place: FirestoreLocation, name: str, about: str, registry: str = "small", **settings: str
) -> Peer:
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


def peers(place: FirestoreLocation) -> dict[str, Peer]:
    found = [
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
    found += _routers(place)
    return {peer.name: peer for peer in found}


def _routers(place: FirestoreLocation) -> list[Peer]:
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


# -- what stands around the proxies


def pinned(cpu: int, command: list[str], **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["taskset", "-c", str(cpu), *command], start_new_session=True, **more)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it with all it has started, also what outlives its parent."""
    pids = machine.tree(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + 10
        while pids and time.monotonic() < end:
            process.poll()
            pids = [pid for pid in pids if machine.runs(pid)]
            time.sleep(0.05)
    process.wait(10)


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 30) -> float:
    """Seconds until somebody listens."""
    began = time.perf_counter()
    while time.perf_counter() - began < timeout_s:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.005)
            continue
        return time.perf_counter() - began
    raise RuntimeError(f"nobody listens on port {port}")


def request_bytes(place: FirestoreLocation, case: Case) -> bytes:
    body = b'{"inputs":"' + b"x" * (case.up - 13) + b'"}'
    head = (
        f"POST {case.path} HTTP/1.1\r\nHost: gateway-abcdefghij-uc.a.run.app\r\nUser-Agent: python-requests/2.32.3\r\n"
        "Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nContent-Type: application/json\r\n"
        f"X-Api-Key: {place.key}\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
        f"traceparent: 00-105445aa7843bc8bf206b12000100000-0000000000000001-00\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def check_answer(place: FirestoreLocation, case: Case) -> None:
    """One request by hand: a proxy that refuses everything would win every race."""
    import http.client

    raw = request_bytes(place, case)
    connection = socket.create_connection(("127.0.0.1", PORT), 10)
    connection.sendall(raw)
    answer = http.client.HTTPResponse(connection, method="POST")
    answer.begin()
    size = len(answer.read())
    connection.close()
    if answer.status != 200 or size != case.down:
        raise RuntimeError(f"answered {answer.status} with {size} bytes instead of 200 with {case.down}")


def await_answer(
    place: FirestoreLocation, case: Case, process: subprocess.Popen[bytes], patience_s: float
) -> None:
    """Some listen before they can answer."""
    end = time.perf_counter() + patience_s
    while True:
        try:
            return check_answer(place, case)
        except (RuntimeError, OSError) as error:
            if time.perf_counter() > end or process.poll() is not None:
                raise RuntimeError(str(error)) from error
        time.sleep(0.01)


def closed_loop(place: FirestoreLocation, case: Case, seconds: int) -> dict[str, Any]:
    command = [
        "taskset",
        "-c",
        str(LOAD_CPU),
        "wrk",
        "-t1",
        f"-c{case.connections}",
        f"-d{seconds}s",
        "--timeout",
        "20s",
    ]
    command += ["-s", str(HERE / "tools" / "post.lua"), f"http://127.0.0.1:{PORT}{case.path}"]
    environment = {**os.environ, "BODY_BYTES": str(case.up), "API_KEY": place.key}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("JSON "))
    return dict(json.loads(line[5:]))


def open_loop(place: FirestoreLocation, case: Case, rate: float, seconds: int) -> dict[str, Any]:
    command = [
        "taskset",
        "-c",
        str(LOAD_CPU),
        str(place.work / "openloop"),
        str(PORT),
        str(case.connections),
        f"{rate:.0f}",
        f"{seconds:g}",
    ]
    done = subprocess.run(
        command, input=request_bytes(place, case), capture_output=True, check=False, timeout=seconds + 60
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode().strip() or "the open loop did not get all its answers")
    return dict(json.loads(done.stdout))


@contextmanager
def surroundings(envoy: str, routers: str, *, large: bool) -> Iterator[FirestoreLocation]:
    """Tools built, certificate and registries made, backends running."""
    with tempfile.TemporaryDirectory(prefix="chips-bench-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        for tool in ("backend", "openloop"):
            subprocess.run(["cc", "-O2", "-o", work / tool, HERE / "tools" / f"{tool}.c"], check=True)
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                work / "key.pem",
                "-out",
                work / "cert.pem",
            ],
            check=True,
            capture_output=True,
        )
        key = asyncio.run(make_registry(work / "small.db"))
        if large:
            asyncio.run(make_registry(work / "large.db", models=10_000, keys=100_000, key=key))
        place = FirestoreLocation(work, key, envoy, routers)
        backend = pinned(LOAD_CPU, [str(work / "backend"), str(BACKEND)])
        secure = (
            pinned(LOAD_CPU, ["nginx", "-p", str(work), "-c", str(render(place, "secure.conf"))])
            if shutil.which("nginx")
            else None
        )
        try:
            wait_for_port(BACKEND, backend)
            if secure is not None:
                wait_for_port(SECURE, secure)
            yield place
        finally:
            stop(backend)
            if secure is not None:
                stop(secure)


async def make_registry(
    path: Path, *, models: int = 0, keys: int = 0, key: str = "", backend: str = f"http://127.0.0.1:{BACKEND}"
) -> str:
    """A registry with the models of the cases, a key that may call them, and as many others as asked for."""
    from gateway.core.keys import digest_key, make_key
    from gateway.core.model import Backend, Key, Model
    from gateway.core.model_updates import to_document
    from gateway.registry.base import KEYS, MODELS, Put
    from gateway.registry.schemes import open_registry

    registry = open_registry(f"sqlite://{path}")
    key = key or make_key()
    plain, secure = backend, f"https://localhost:{SECURE}"
    routes = {case.path[1:]: secure if case.path == "/tls" else plain for case in CASES.values()}
    changes = [
        Put(
            kind=MODELS,
            name=name,
            body=to_document(
                Model(
                    name=name,
                    backends=(Backend(version="1", url=url, predict_path=f"/{name}"),),
                    traffic={"1": 100},
                )
            ),
            expected=0,
        )
        for name, url in {**routes, **{f"other-{i}": plain for i in range(models)}}.items()
    ]
    entry = Key(label="bench", models=("*",), created="2026-01-01T00:00:00Z")
    changes += [
        Put(kind=KEYS, name=name, body=to_document(entry), expected=0)
        for name in (digest_key(key), *(digest_key(f"other-{i}") for i in range(keys)))
    ]
    for i in range(0, len(changes), 5000):
        await registry.write(*changes[i : i + 5000], author="bench")
    await registry.close()
    return key


# -- measuring


def measure(
    place: FirestoreLocation, peer: Peer, cases: Sequence[str], seconds: int, open_cases: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Start `peer`, and give one result for each case; for `open_cases` an open-loop one, too, at half the rate that the closed loop reached."""
    log = (place.work / f"{peer.name.replace(' ', '-')}.out").open("wb")
    began = time.perf_counter()
    process = pinned(
        PROXY_CPU,
        peer.command,
        env={**os.environ, **peer.environment},
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=HERE.parent,
    )
    try:
        try:
            wait_for_port(PORT, process, peer.patience_s)
            await_answer(place, CASES[cases[0]], process, peer.patience_s)
            answered_s = time.perf_counter() - began
        except RuntimeError as error:
            yield {
                "peer": peer.name,
                "case": "start",
                "error": f"{error}: {Path(log.name).read_text()[-500:]}",
            }
            return
        for name in cases:
            case = CASES[name]
            try:
                check_answer(place, case)
                closed_loop(place, case, peer.least_s)
                pids = machine.tree(process.pid)
                before = machine.cpu_us(pids)
                load = closed_loop(place, case, max(seconds, peer.least_s))
                spent = machine.cpu_us(pids) - before
            except (RuntimeError, OSError, subprocess.SubprocessError, StopIteration) as error:
                yield {"peer": peer.name, "case": name, "error": str(error)}
                continue
            duration_s = load["duration_us"] / 1e6
            yield {
                "peer": peer.name,
                "case": name,
                "cpu_us": spent / load["requests"],
                "per_s": load["requests"] / duration_s,
                "p50_us": load["p50_us"],
                "p99_us": load["p99_us"],
                "failed": load["failed"],
                "busy": spent / load["duration_us"],
                "mb_per_cpu_s": load["requests"] * (case.up + case.down) / spent,
                "rss_mb": machine.rss_mb(pids),
                "started_s": answered_s,
            }
            if name in open_cases:
                rate = load["requests"] / duration_s / 2
                opened = {"peer": peer.name, "case": name, "open_rate": rate}
                try:
                    yield {**opened, **open_loop(place, case, rate, max(seconds, peer.least_s))}
                except (RuntimeError, subprocess.SubprocessError) as error:
                    yield {**opened, "error": str(error)}
    finally:
        stop(process)
        log.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default="", help=f"comma-separated, of {', '.join(NAMES)}; all by default")
    parser.add_argument("--cases", default="", help=f"comma-separated, of {', '.join(CASES)}; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of load per measurement")
    parser.add_argument(
        "--routers",
        default=".venv-bench",
        help="what the names of the virtual environments of LiteLLM, Ray Serve and BentoML begin with",
    )
    parser.add_argument("--envoy", default=os.environ.get("ENVOY", ""), help="Envoy's program")
    parser.add_argument(
        "--out", type=Path, default=None, help="folder for the results; none: only the terminal"
    )
    parser.add_argument("--add", action="store_true", help="to the results that are in that folder")
    given = parser.parse_args()
    cases = given.cases.split(",") if given.cases else list(CASES)
    reasons = absent(given.envoy, given.routers)
    chosen = given.peers.split(",") if given.peers else [name for name in NAMES if name not in reasons]
    for name in cases:
        if name not in CASES:
            parser.error(f"there is no case {name!r}; there are {', '.join(CASES)}")
    for name in chosen:
        if name not in NAMES:
            parser.error(f"there is no peer {name!r}; there are {', '.join(NAMES)}")
        if name in reasons:
            parser.error(f"{name} cannot be measured here: {reasons[name]}")
    for program, package in (
        ("wrk", "wrk"),
        ("cc", "gcc"),
        ("openssl", "openssl"),
        ("taskset", "util-linux"),
    ):
        if not shutil.which(program):
            parser.error(f"{program} is not installed (Debian: apt install {package})")
    if not given.peers:
        for name, reason in reasons.items():
            print(f"left out: {name}, for {reason}", flush=True)
    before: dict[str, Any] = report.read(given.out) if given.add and given.out is not None else {}
    results: list[dict[str, Any]] = list(before.get("results", ()))
    with surroundings(given.envoy, given.routers, large="chips 10k" in chosen) as place:
        known = peers(place)
        about = {name: known[name].about for name in chosen}
        for number in range(given.rounds):
            for name in chosen:
                its = [case for case in cases if case in (known[name].cases or cases)]
                for result in measure(place, known[name], its, given.seconds, ["1k"]) if its else ():
                    results.append({"round": number, **result})
                    print(report.line(results[-1]), flush=True)
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "peers": {**before.get("peers", {}), **about},
        "cases": {name: case.about for name, case in CASES.items()},
        "left_out": {} if given.peers else reasons,
        "results": results,
    }
    if not given.peers or "start" in before:
        document["start"] = start.measure(5) if not given.peers else before["start"]
    print(report.table(document))
    if given.out is not None:
        report.write(document, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
