"""The Python backend next to what people use instead: the same models, the same rows, one core each, answers checked.

    python -m benchmarks.backends.alternatives --venvs .venv-bench-models [--seconds 1] [--rounds 1] [--peers chips,fastapi]
        [--kinds numbers,mixed,onnx,wide] [--rows 1,100,1000] [--callers 8] [--out benchmarks/results] [--docs docs/performance.md]

`make bench-backends` makes the environments first. Each server runs alone on one CPU, wrk on another. The figure of record is CPU
time per request of the server's process tree, user and system, by the scheduler's own accounting.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from benchmarks import bench, machine
from benchmarks.backends.alternatives_report import CALLERS, NAME, tables
from benchmarks.backends.page import rewrite
from benchmarks.backends.served_models import KINDS, Asked, Served, ask, labels_in, make
from benchmarks.load import LOAD_CPU
from benchmarks.processes import pinned, stop
from benchmarks.proxies import HERE as BENCHMARKS

HERE = Path(__file__).parent
PEERS_DIR = HERE / "peers"
PORT = 18470
_START_S = 90.0
_BUSY_S = 10.0


class Way(NamedTuple):
    """One protocol of a peer."""

    protocol: str
    path: str


class Peer(NamedTuple):
    name: str
    title: str
    ways: dict[str, tuple[Way, ...]]  # by kind of model; none: not served, and why is in `without`
    without: Mapping[str, str] = MappingProxyType({})


_V1 = Way("v1", "/predict")
_INFER = "/v2/models/m/infer"
_OURS = (_V1, Way("v2", _INFER), Way("binary", _INFER))
_KSERVE = (Way("v1", "/v1/models/m:predict"), Way("v2", _INFER), Way("binary", _INFER))
PEERS = (
    Peer("chips", "ours", dict.fromkeys(KINDS, _OURS)),
    Peer("fastapi", "FastAPI + joblib", dict.fromkeys(KINDS, (_V1,))),
    Peer(
        "mlserver",
        "MLServer",
        {"numbers": (Way("v2", _INFER),), "mixed": (Way("v2p", _INFER),), "wide": (Way("v2", _INFER),)},
        {"onnx": "has no runtime for ONNX"},
    ),
    Peer("bentoml", "BentoML", dict.fromkeys(KINDS, (_V1,))),
    Peer("litserve", "LitServe", dict.fromkeys(KINDS, (_V1,))),
    Peer(
        "mlflow",
        "MLflow",
        {
            "numbers": (Way("inputs", "/invocations"),),
            "wide": (Way("inputs", "/invocations"),),
            "mixed": (Way("dataframe_records", "/invocations"),),
            "onnx": (Way("inputs", "/invocations"),),
        },
    ),
    Peer(
        "kserve",
        "KServe",
        {"numbers": _KSERVE, "mixed": (_KSERVE[0], Way("v2p", _INFER)), "onnx": _KSERVE, "wide": _KSERVE},
    ),
)


def main() -> None:
    arguments = _arguments()
    kinds = arguments.kinds.split(",")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            raise SystemExit(
                f"error: port {PORT} is taken: end what listens there, perhaps a server of an earlier run"
            )
    wanted = arguments.peers.split(",") if arguments.peers else [peer.name for peer in PEERS]
    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {**machine.describe(), "load": os.getloadavg()},
        "seconds": arguments.seconds,
        "rounds": 0,
        "peers": {peer.name: peer.title for peer in PEERS},
        "left_out": [],
        "starts": [],
        "figures": [],
    }
    with tempfile.TemporaryDirectory(prefix="chips-alternatives-") as folder:
        models = make(Path(folder))
        for number in range(arguments.rounds):
            for kind in kinds:
                for peer in PEERS:
                    if peer.name in wanted:
                        print(f"round {number + 1}: {peer.name}, {kind} …", file=sys.stderr, flush=True)
                        _measure(peer, models[kind], Path(folder), arguments, document)
                document["rounds"] = max(1, number + (kind == kinds[-1]))
                _write(arguments.out, document)  # so that a run that is ended early has not been in vain
    text = tables(document)
    print(text)
    if arguments.docs is not None:
        rewrite(arguments.docs, NAME, text)


def _write(folder: Path | None, document: dict[str, Any]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alternatives.json").write_text(json.dumps(document, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venvs", required=True, help="the environments' common prefix")
    parser.add_argument("--seconds", type=int, default=2, help="for each figure")
    parser.add_argument("--rounds", type=int, default=1, help="interleaved; the median counts")
    parser.add_argument("--peers", default="", help="names with commas; all by default")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--rows", default="1,100,1000,10000")
    parser.add_argument("--callers", default="1,8,64")
    parser.add_argument("--out", type=Path, help="the folder for alternatives.json")
    parser.add_argument("--docs", type=Path, help="the page whose tables are written anew")
    return parser.parse_args()


def _measure(
    peer: Peer, served: Served, folder: Path, arguments: argparse.Namespace, into: dict[str, Any]
) -> None:
    python = Path(f"{arguments.venvs}-{peer.name}/bin/python").absolute()
    reason = peer.without.get(served.kind, "")
    if not reason and peer.name != "chips" and not python.exists():
        reason = "cannot be installed here"
    if reason:
        into["left_out"].append({"peer": peer.name, "kind": served.kind, "why": reason})
        return
    try:
        with _running(peer, served, python, folder) as (process, start):
            into["starts"].append({"peer": peer.name, "kind": served.kind, **start})
            for way in peer.ways[served.kind]:
                _measure_way(peer, served, way, process, arguments, into)
    except (
        RuntimeError,
        OSError,
        http.client.HTTPException,
        ValueError,
        subprocess.SubprocessError,
    ) as error:
        into["left_out"].append({"peer": peer.name, "kind": served.kind, "why": str(error)[:300]})
        print(f"  left out: {error}", file=sys.stderr)


def _measure_way(
    peer: Peer,
    served: Served,
    way: Way,
    process: subprocess.Popen[bytes],
    arguments: argparse.Namespace,
    into: dict[str, Any],
) -> None:
    sizes = sorted(map(int, arguments.rows.split(",")))
    if served.kind == "wide":  # is there to compare forms of large bodies
        sizes = [size for size in sizes if size == 1000]
    for rows in sizes:
        asked = ask(served, way.protocol, rows)
        _check_when_free(way, asked)
        for callers in map(int, arguments.callers.split(",")):
            if callers != CALLERS and rows > 1:
                continue
            found = load(way, asked, callers, arguments.seconds, process)
            where = {"peer": peer.name, "kind": served.kind, "protocol": way.protocol, "rows": rows}
            into["figures"].append({**where, "callers": callers, **found})


def _check(way: Way, asked: Asked) -> float:
    """One request by hand; how long it took. Raises RuntimeError where its labels are others than the model's own."""
    began = time.perf_counter()
    answer = ask_once(way, asked, PORT)
    took = time.perf_counter() - began
    if answer.status != 200:
        said = f"{way.protocol}: {answer.status} {answer.content[:200]!r}"
        raise Busy(said) if answer.status == 503 and answer.retry_after is not None else RuntimeError(said)
    if labels_in(answer.content, answer.length) != asked.labels:
        raise RuntimeError(f"{way.protocol}: another answer than the model's own: {answer.content[:200]!r}")
    return took


def _check_when_free(way: Way, asked: Asked) -> None:
    """As `_check`, for a server that may still be at what the last load left in its queue."""
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            _check(way, asked)
            return
        except Busy:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


class Busy(RuntimeError):
    """503 with Retry-After: it was not asked in vain, but too early."""


class Answer(NamedTuple):
    status: int
    content: bytes
    length: str | None  # the header that says where the JSON in it ends
    retry_after: str | None


def ask_once(way: Way, asked: Asked, port: int) -> Answer:
    """One request. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", way.path, asked.body, asked.headers)
        answer = connection.getresponse()
        length = answer.headers.get("Inference-Header-Content-Length")
        return Answer(answer.status, answer.read(), length, answer.headers.get("Retry-After"))
    finally:
        connection.close()


def load(
    way: Way, asked: Asked, callers: int, seconds: int, process: subprocess.Popen[bytes], port: int = PORT
) -> dict[str, Any]:
    """The cost of a request, by wrk: requests/s, CPU µs of the process tree per request, latencies, memory."""
    with tempfile.NamedTemporaryFile(prefix="chips-body-") as body:
        body.write(asked.body)
        body.flush()
        environment = {
            **os.environ,
            "BODY_FILE": body.name,
            "HEADERS": "\n".join(f"{name}: {value}" for name, value in asked.headers.items()),
        }
        command = ["taskset", "-c", str(LOAD_CPU), "wrk", "-t1", f"-c{callers}", f"-d{seconds}s"]
        command += [
            "--timeout",
            "30s",
            "-s",
            str(BENCHMARKS / "tools/body.lua"),
            f"http://127.0.0.1:{port}{way.path}",
        ]
        _run_wrk([*command[:5], f"-c{callers}", "-d1s", *command[7:]], environment)  # warms it up
        pids = machine.tree(process.pid)
        before = machine.cpu_us(pids)
        said = _run_wrk(command, environment)
        spent = machine.cpu_us(pids) - before
    if not said["requests"] or said["failed"]:
        failed = f"{said['failed']} of {said['requests']} failed"
        return {"served": False, "why": failed if said["requests"] else f"no answer within {seconds} s"}
    return {
        "served": True,
        "per_s": round(said["requests"] / said["duration_us"] * 1e6, 1),
        "cpu_us": round(spent / said["requests"], 1),
        "p50_ms": round(said["p50_us"] / 1000, 2),
        "p99_ms": round(said["p99_us"] / 1000, 2),
        "rss_mb": round(machine.rss_mb(pids)),
    }


def _run_wrk(command: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    line = next(line for line in done.stdout.splitlines() if line.startswith("JSON "))
    return dict(json.loads(line[5:]))


@contextmanager
def _running(
    peer: Peer, served: Served, python: Path, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, float]]]:
    """The server, started on one CPU and ready, with how long that took and its first prediction."""
    environment = {
        **os.environ,
        "BENCH_KIND": served.kind,
        "BENCH_FILE": str(served.file),
        "PORT": str(PORT),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(PEERS_DIR),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    command, more = _command(peer, served, python, folder, environment)
    way = peer.ways[served.kind][0]
    one = ask(served, way.protocol, 1)
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = pinned(
            bench.PROXY_CPU, command, env={**environment, **more}, stdout=said, stderr=said, cwd=folder
        )
        try:
            first = _await(process, way, one)
            start = {"ready_s": round(time.perf_counter() - began, 2), "first_ms": round(first * 1000, 1)}
            start["rss_mb"] = round(machine.rss_mb(machine.tree(process.pid)))
            yield process, start
        except RuntimeError as error:
            said.seek(0)
            tail = said.read()[-400:].decode(errors="replace")
            raise RuntimeError(f"{error}; {tail}" if process.poll() is not None else str(error)) from None
        finally:
            stop(process)


def _await(process: subprocess.Popen[bytes], way: Way, one: Asked) -> float:
    """Ask until the first right answer; how long that one took."""
    end = time.monotonic() + _START_S
    while True:
        try:
            return _check(way, one)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            if process.poll() is not None:
                raise RuntimeError("it ended before it was ready") from None
            if time.monotonic() > end:
                raise RuntimeError(f"not ready within {_START_S:g} s: {error}") from None
            time.sleep(0.02)


def _command(
    peer: Peer, served: Served, python: Path, folder: Path, environment: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """How it is started, and what more its environment holds."""
    binary = str(python)
    if peer.name == "chips":
        more = {
            "CHIPS_ARTIFACT": str(served.artifact),
            "CHIPS_CONCURRENCY": "1",
            "CHIPS_CACHE_DIR": str(folder / "cache"),
        }
        return [sys.executable, "-m", "chips_backend"], more
    if peer.name == "fastapi":
        options = ["--port", str(PORT), "--workers", "1", "--log-level", "warning"]
        return [binary, "-m", "uvicorn", "fastapi_app:app", *options], {}
    if peer.name == "bentoml":
        return [
            binary,
            "-m",
            "bentoml",
            "serve",
            "bentoml_app:Scores",
            "--port",
            str(PORT),
            "--working-dir",
            str(PEERS_DIR),
        ], {}
    if peer.name == "mlflow":
        saved = folder / f"mlflow-{served.kind}"
        if not saved.exists():
            subprocess.run(
                [binary, str(PEERS_DIR / "mlflow_save.py"), str(saved)],
                env=environment,
                check=True,
                capture_output=True,
            )
        options = ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(PORT), "--workers", "1"]
        path = f"{python.parent.absolute()}:{os.environ['PATH']}"
        return [binary, "-m", "mlflow", "models", "serve", "-m", str(saved), *options], {"PATH": path}
    if peer.name == "mlserver":
        return [str(python.parent / "mlserver"), "start", str(_mlserver(folder, served))], {}
    return [binary, str(PEERS_DIR / f"{peer.name}_app.py")], {}


def _mlserver(folder: Path, served: Served) -> Path:
    place = folder / f"mlserver-{served.kind}"
    place.mkdir(exist_ok=True)
    settings = {
        "debug": False,
        "http_port": PORT,
        "grpc_port": PORT + 1,
        "metrics_port": PORT + 2,
        "parallel_workers": 0,
    }
    (place / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "m",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(served.file)},
    }
    (place / "model-settings.json").write_text(json.dumps(model))
    return place


if __name__ == "__main__":
    main()
