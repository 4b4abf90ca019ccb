"""How long from the start of the process to the first answered request, next to the same gateway importing everything at once.

`python -m benchmarks.start [--rounds 9] [--json]`. A registry in SQLite, one worker, a request with a key to a backend. The
eager one imports, before it does anything, all modules that serve, and whatever any of them imports where it is used.
"""

import argparse
import ast
import asyncio
import http.client
import importlib
import importlib.util
import json
import os
import pkgutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import gateway
from gateway.core.api_key_document import Key
from gateway.core.api_keys import digest_key, make_key
from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.registry.base import KEYS, MODELS, Put
from gateway.registry.open_by_url import open_registry

LAZY = "import sys; from gateway.serve import serve; sys.exit(serve(sys.argv[1:]))"
EAGER = f"import benchmarks.start as start; start.import_everything(); {LAZY}"
PATIENCE_S = 60.0
# Commands of their own, which no gateway that serves would import however eager it was.
ASIDE = ("artifacts", "cli", "cost", "deploy", "register", "testing", "verify")


def import_everything() -> None:
    for name in everything():
        with suppress(ImportError):  # an optional one that is not installed
            importlib.import_module(name)


def everything() -> list[str]:
    """All modules that serve, and what they import inside functions."""
    names: dict[str, None] = {}
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if module.name.split(".")[1] in (*ASIDE, "__main__"):
            continue
        names[module.name] = None
        spec = importlib.util.find_spec(module.name)
        assert spec is not None
        assert spec.origin is not None
        for function in ast.walk(ast.parse(Path(spec.origin).read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                names |= dict.fromkeys(_imported(function))
    return list(names)


def _imported(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # a module, or no module


class _Backend(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


def measure(rounds: int) -> dict[str, float]:
    """Medians, in seconds, and their ratio."""
    backend = ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    seconds: dict[str, list[float]] = {"lazy": [], "eager": []}
    with TemporaryDirectory() as folder:
        registry = f"sqlite://{folder}/registry.db"
        key = asyncio.run(_register(registry, f"http://127.0.0.1:{backend.server_address[1]}"))
        for number in range(rounds + 1):
            for name, program in (("lazy", LAZY), ("eager", EAGER)):
                took_s = _first_answer(program, registry, key)
                if number:  # the first one compiles
                    seconds[name].append(took_s)
    backend.shutdown()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "ratio": medians["lazy"] / medians["eager"], "modules": len(everything())}


async def _register(url: str, backend: str) -> str:
    registry, key = open_registry(url), make_key()
    model = Model(name="m", backends=(Backend(version="1", url=backend),), traffic={"1": 100})
    entry = Key(label="bench", models=("*",), created="2026-01-01T00:00:00Z")
    await registry.write(
        Put(kind=MODELS, name="m", body=to_document(model), expected=0),
        Put(kind=KEYS, name=digest_key(key), body=to_document(entry), expected=0),
        author="bench",
    )
    await registry.close()
    return key


def _first_answer(program: str, registry: str, key: str) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = [f"--registry={registry}", "--server.host=127.0.0.1", f"--server.port={port}"]
    flags += ["--server.workers=1", "--log.format=json", "--trace.store=off"]
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", program, *flags], stdout=subprocess.DEVNULL, env={**os.environ}
    ) as process:
        try:
            while not _answers(port, key):
                if process.poll() is not None or time.perf_counter() - began > PATIENCE_S:
                    raise RuntimeError("the gateway did not start")
                time.sleep(0.002)
            return time.perf_counter() - began
        finally:
            process.terminate()


def _answers(port: int, key: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/m", b"{}", {"X-Api-Key": key})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of sentences")
    given = parser.parse_args()
    figures = measure(given.rounds)
    if given.json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"start to first answer: {figures['lazy']:.3f} s; importing everything first: {figures['eager']:.3f} s; "
        f"{figures['ratio']:.2f} of it ({given.rounds} rounds, medians)"
    )


if __name__ == "__main__":
    main()
