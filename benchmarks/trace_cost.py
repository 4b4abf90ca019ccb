"""What kept traces cost a whole gateway: CPU time a request with none, 1 % and all of them kept.

    python -m benchmarks.trace_cost [--seconds 5] [--rounds 3]

A gateway process, nginx as the backend, wrk as the callers, all on this machine; the cases take turns. CPU time is user
and system of the gateway's process with all its threads. `otlp` also sends every trace to a collector (Python, not
counted).
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_LUA = 'wrk.method="POST"; wrk.body=string.rep("x",1024); wrk.headers["Content-Type"]="application/json"'
_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; location / {{
    add_header Server-Timing "queue;dur=0.1, parse;dur=0.1, predict;dur=0.2, render;dur=0.1"; return 200 "{body}"; }} }} }}
"""
CASES = {
    "none": {"CHIPS_TRACE__RATIO": "0", "CHIPS_TRACE__RECENT_PER_S": "0"},
    "1 %": {"CHIPS_TRACE__RATIO": "0.01"},
    "all": {"CHIPS_TRACE__RATIO": "1"},
    "otlp, 1 %": {"CHIPS_TRACE__RATIO": "0.01", "CHIPS_TRACE__EXPORTER": "otlp"},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def process(*command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)


def cpu_s(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def wait_for(url: str) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def one(environ: dict[str, str], registry: str, key: str, folder: Path, seconds: int) -> tuple[float, float]:
    """CPU microseconds a request, and requests a second."""
    port = free_port()
    lua = folder / "post.lua"
    lua.write_text(_LUA)
    with process(
        *(sys.executable, "-m", "gateway"),
        CHIPS_REGISTRY=registry,
        CHIPS_SERVER__HOST="127.0.0.1",
        CHIPS_SERVER__PORT=str(port),
        CHIPS_SERVER__WORKERS="1",
        CHIPS_TRACE__STORE=str(folder / "requests.db"),
        **environ,
    ) as gateway:
        wait_for(f"http://127.0.0.1:{port}/-/ready")
        load = [
            "wrk",
            "-t1",
            "-c32",
            "-s",
            str(lua),
            "-H",
            f"X-Api-Key: {key}",
            f"http://127.0.0.1:{port}/bench",
        ]
        subprocess.run([*load, "-d1s"], check=True, capture_output=True)
        before = cpu_s(gateway.pid)
        out = subprocess.run([*load, f"-d{seconds}s"], check=True, capture_output=True, text=True).stdout
        time.sleep(1)  # what is still in a queue belongs to the bill
        used = cpu_s(gateway.pid) - before
    if "Non-2xx" in out:
        raise SystemExit(out)
    match = re.search(r"(\d+) requests in", out)
    requests = int(match[1]) if match else 0
    return used / requests * 1e6, requests / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is needed: apt install {tool}")
    collector = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        conf = folder / "nginx.conf"
        conf.write_text(_NGINX.format(folder=folder, port=port, body="y" * 1024))
        registry = f"sqlite://{folder}/registry.db"

        def chips(*arguments: str) -> str:
            command = [sys.executable, "-m", "gateway.cli", *arguments]
            environ = {**os.environ, "CHIPS_REGISTRY": registry}
            return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout

        with process("nginx", "-c", str(conf)):
            chips("register", "bench", f"http://127.0.0.1:{port}", "--no-probe", "--version", "1")
            key = chips("keys", "create", "bench").strip()
            endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
            for _ in range(options.rounds):
                for case, environ in CASES.items():
                    given = {**environ, "CHIPS_TRACE__OTLP_ENDPOINT": endpoint}
                    found[case].append(one(given, registry, key, folder, options.seconds))
    collector.shutdown()
    none = statistics.median(cpu for cpu, _ in found["none"])
    print(f"{'kept':<12}{'CPU us/request':>16}{'over none':>12}{'requests/s':>12}")
    for case, rows in found.items():
        cpu = statistics.median(cpu for cpu, _ in rows)
        rate = statistics.median(rate for _, rate in rows)
        print(f"{case:<12}{cpu:>16.1f}{(cpu / none - 1) * 100:>11.1f}%{rate:>12.0f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
