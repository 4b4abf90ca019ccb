"""What a shadow costs callers: their latency, and the gateway's CPU time a request, without and with a shadow of 5 %.

    python -m benchmarks.shadow_cost [--seconds 3] [--rounds 6]        (about a minute)

Two gateway processes, nginx as both versions, wrk as the callers with four connections, all on this machine. The two take turns, each
round in another order, and are compared within a round. CPU time is that of the gateway's process; the process that compares
has its own, which is shown next to it.
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
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.trace_cost import LUA, NGINX, cpu_s, process, wait_for
from gateway.free_ports import free_port

_PERCENT = "5"
_SETTLE_S = 1.0
_UNITS = {"us": 1.0, "ms": 1000.0, "s": 1e6}


class Turn(NamedTuple):
    """One round of one gateway. Latencies in microseconds."""

    p50: float
    p99: float
    cpu_us: float
    comparer_us: float


class Gateway:
    """A gateway with a registry of its own, and the model `bench` in two versions."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, backend: str, *, shadowed: bool) -> None:
        folder.mkdir()
        self._folder = folder
        self._environ = {
            "CHIPS_REGISTRY": f"sqlite://{folder}/registry.db",
            "CHIPS_SERVER__HOST": "127.0.0.1",
            "CHIPS_SERVER__PORT": str(free_port()),
            "CHIPS_SERVER__WORKERS": "1",
            "CHIPS_TRACE__STORE": "off",
        }
        for version in ("1", "2"):
            self.chips(
                *(
                    "register",
                    "bench",
                    f"{backend}/{version}",
                    "--no-probe",
                    "--force",
                    "--version",
                    version,
                    "--pure",
                )
            )
        self._key = self.chips("keys", "create", "bench").strip()
        self.url = f"http://127.0.0.1:{self._environ['CHIPS_SERVER__PORT']}"
        self._process = stack.enter_context(process(sys.executable, "-m", "gateway", **self._environ))
        wait_for(f"{self.url}/-/ready")
        (folder / "post.lua").write_text(LUA)
        if shadowed:
            self.chips(
                *("shadow", "bench", "2", "--percent", _PERCENT, "--max-rate", "10000", "--yes"),
                *("--gateway", self.url, "--json"),
            )

    def chips(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "gateway.cli", *arguments]
        environ = {**os.environ, **self._environ}
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout

    def _comparer_s(self) -> float:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sum(cpu_s(int(child)) for child in children)

    def turn(self, seconds: int) -> Turn:
        before, compared = cpu_s(self._process.pid), self._comparer_s()
        command = ["wrk", "-t1", "-c4", f"-d{seconds}s", "--latency", "-s", str(self._folder / "post.lua")]
        command += ["-H", f"X-Api-Key: {self._key}", f"{self.url}/bench"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        match = re.search(r"(\d+) requests in", out)
        if "Non-2xx" in out or match is None:
            raise SystemExit(out)
        time.sleep(_SETTLE_S)
        each = 1e6 / int(match[1])
        return Turn(
            _percentile(out, "50"),
            _percentile(out, "99"),
            (cpu_s(self._process.pid) - before) * each,
            (self._comparer_s() - compared) * each,
        )


def _percentile(out: str, which: str) -> float:
    match = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s)$", out, re.MULTILINE)
    if match is None:
        raise SystemExit(out)
    return float(match[1]) * _UNITS[match[2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is needed: apt install {tool}")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = free_port()
        body = json.dumps({"predictions": [0.5] * 200})
        conf = folder / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, port=port, body=body.replace('"', '\\"')))
        stack.enter_context(process("nginx", "-c", str(conf)))
        backend = f"http://127.0.0.1:{port}"
        gateways = [
            Gateway(stack, folder / what, backend, shadowed=what == "with") for what in ("without", "with")
        ]
        for gateway in gateways:
            gateway.turn(1)
        turns: list[list[Turn]] = [[], []]
        for number in range(options.rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                turns[which].append(gateways[which].turn(options.seconds))
        report(turns, json.loads(gateways[1].chips("shadow", "bench", "--status", "--json")))


def report(turns: list[list[Turn]], found: dict[str, object]) -> None:
    print(f"{'':<22}{'without':>10}{'with':>10}   ratio: the median of the rounds, and their range")
    for name in ("p50", "p99", "cpu_us"):
        without, shadowed = ([getattr(turn, name) for turn in side] for side in turns)
        ratios = sorted(b / a for a, b in zip(without, shadowed, strict=True))
        print(
            f"{name:<22}{statistics.median(without):>10.1f}{statistics.median(shadowed):>10.1f}"
            f"   {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )
    comparing = statistics.median(turn.comparer_us for turn in turns[1])
    print(f"{'comparing, us of CPU':<22}{'':>10}{comparing:>10.1f}")
    print(f"sampled {found['sampled']}, compared {found['compared']}, left out {found['dropped']}")


if __name__ == "__main__":
    main()
