# Long: one measurement, read from top to bottom.
"""What kept traces cost a whole gateway: CPU time a request with none, 1 % and all of them kept, in the store or sent by OTLP.

    python -m benchmarks.trace_cost [--seconds 3] [--rounds 10]        (under five minutes)

A gateway process for each case, nginx as the backend, wrk as the callers, all on this machine. The cases take turns, each
round in another order, and each is compared with "none" of the same round. CPU time is user and system of the gateway's
process with all its threads; the collector that takes OTLP is not counted. "none" has neither a store nor an exporter:
where there is one, what is slower than 99 % of the last minute is kept in any case.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
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

from gateway.free_ports import claim_free_port

_TICKS = os.sysconf("SC_CLK_TCK")
LUA = 'wrk.method="POST"; wrk.body=string.rep("x",1024); wrk.headers["Content-Type"]="application/json"'
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; location / {{
    add_header Server-Timing "queue;dur=0.1, parse;dur=0.1, predict;dur=0.2, render;dur=0.1"; return 200 "{body}"; }} }} }}
"""
_STORED = {"CHIPS_TRACE__EXPORTER": "none"}
_SENT = {"CHIPS_TRACE__EXPORTER": "otlp", "CHIPS_TRACE__STORE": "off"}
CASES = {
    "none": {"CHIPS_TRACE__RATIO": "0", "CHIPS_TRACE__EXPORTER": "none", "CHIPS_TRACE__STORE": "off"},
    "store, 1 %": {"CHIPS_TRACE__RATIO": "0.01", **_STORED},
    "store, all": {"CHIPS_TRACE__RATIO": "1", **_STORED},
    "otlp, 1 %": {"CHIPS_TRACE__RATIO": "0.01", **_SENT},
    "otlp, all": {"CHIPS_TRACE__RATIO": "1", **_SENT},
}
_SETTLE_S = 1.0  # what is still in a queue belongs to the bill


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


class Gateway:
    """One case: a gateway that runs all the time, and works when it is its turn."""

    def __init__(self, case: str, process_id: int, url: str, folder: Path, key: str) -> None:
        self.case = case
        self._process_id = process_id
        self._url = url
        self._key = key
        self._script = folder / "post.lua"
        self._script.write_text(LUA)
        self.cpu_us: list[float] = []
        self.requests = 0

    def load(self, seconds: int) -> int:
        """Requests answered."""
        command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(self._script)]
        command += ["-H", f"X-Api-Key: {self._key}", f"{self._url}/bench"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        match = re.search(r"(\d+) requests in", out)
        if "Non-2xx" in out or match is None:
            raise SystemExit(f"{self.case}: {out}")
        return int(match[1])

    def turn(self, seconds: int) -> None:
        before = cpu_s(self._process_id)
        requests = self.load(seconds)
        time.sleep(_SETTLE_S)
        self.cpu_us.append((cpu_s(self._process_id) - before) / requests * 1e6)
        self.requests += requests

    def count(self, metric: str) -> int:
        """The sum of one of its metrics."""
        asked = urllib.request.Request(f"{self._url}/-/metrics", headers={"X-Api-Key": self._key})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            text = answer.read().decode()
        return int(sum(float(n) for n in re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is needed: apt install {tool}")
    collector = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = claim_free_port()
        conf = folder / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, port=port, body="y" * 1024))
        shared = {
            "CHIPS_REGISTRY": f"sqlite://{folder}/registry.db",
            "CHIPS_TRACE__RECENT_PER_S": "0",
            "CHIPS_TRACE__OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}",
            "CHIPS_SERVER__HOST": "127.0.0.1",
            "CHIPS_SERVER__WORKERS": "1",
        }

        def chips(*arguments: str) -> str:
            command = [sys.executable, "-m", "gateway.cli", *arguments]
            return subprocess.run(
                command, env={**os.environ, **shared}, check=True, capture_output=True, text=True
            ).stdout

        stack.enter_context(process("nginx", "-c", str(conf)))
        chips("register", "bench", f"http://127.0.0.1:{port}", "--no-probe", "--force", "--version", "1")
        key = chips("keys", "create", "bench", "--verbs", "score", "--verbs", "operate").strip()
        gateways = []
        for number, (case, environ) in enumerate(CASES.items()):
            own = {
                "CHIPS_SERVER__PORT": str(claim_free_port()),
                "CHIPS_TRACE__STORE": str(folder / f"requests-{number}.db"),
            }
            running = stack.enter_context(
                process(sys.executable, "-m", "gateway", **{**shared, **own, **environ})
            )
            url = f"http://127.0.0.1:{own['CHIPS_SERVER__PORT']}"
            wait_for(f"{url}/-/ready")
            gateways.append(Gateway(case, running.pid, url, folder, key))
        for gateway in gateways:
            gateway.load(1)
        time.sleep(_SETTLE_S)
        for number in range(options.rounds):
            first = number % len(gateways)
            for gateway in (*gateways[first:], *gateways[:first]):
                gateway.turn(options.seconds)
        report(gateways)
    collector.shutdown()


def report(gateways: list[Gateway]) -> None:
    none = gateways[0].cpu_us
    print("over none: the median of the rounds, and the middle half of them")
    print(f"{'kept':<12}{'CPU us/request':>16}{'over none':>12}{'':>20}{'kept':>10}{'lost':>8}")
    for gateway in gateways:
        over = sorted((own / other - 1) * 100 for own, other in zip(gateway.cpu_us, none, strict=True))
        half = f"{over[len(over) // 4]:+.1f} to {over[-1 - len(over) // 4]:+.1f} %"
        kept, lost = gateway.count("chips_traces_kept_total"), gateway.count("chips_traces_dropped_total")
        print(
            f"{gateway.case:<12}{statistics.median(gateway.cpu_us):>16.1f}{statistics.median(over):>+11.1f}%"
            f"{half:>20}{kept:>10}{lost:>8}"
        )
    print(json.dumps({gateway.case: [round(us, 1) for us in gateway.cpu_us] for gateway in gateways}))


if __name__ == "__main__":
    main()
