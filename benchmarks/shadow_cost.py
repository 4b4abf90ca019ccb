"""What a shadow costs callers: their latency, and the gateway's CPU time a request, without and with a shadow of 5 %.

    python -m benchmarks.shadow_cost [--seconds 3] [--rounds 20] [--max-rate 10000]        (three minutes)

`--max-rate` is that of `chips shadow`: 10 000 requests a second is no bound here, 20 is what you get unless you say otherwise. Two gateway processes, nginx as both versions, wrk as the callers with four connections, all on this machine. The two take turns, each
round in another order, and are compared within a round. CPU time is that of the gateway's process; the process that compares
has its own, which is shown next to it. Of two gateways that are equal, each is the slower one in half of the rounds; the last column says in how
many the shadowed one was.
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
from gateway.free_ports import claim_free_port

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

    def __init__(
        self, stack: contextlib.ExitStack, folder: Path, backend: str, *, max_rate: str, shadowed: bool
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._environ = {
            "CHIPS_REGISTRY": f"sqlite://{folder}/registry.db",
            "CHIPS_SERVER__HOST": "127.0.0.1",
            "CHIPS_SERVER__PORT": str(claim_free_port()),
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
                *("shadow", "bench", "2", "--percent", _PERCENT, "--max-rate", max_rate, "--yes"),
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
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--max-rate", default="10000")
    options = parser.parse_args()
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is needed: apt install {tool}")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = claim_free_port()
        body = json.dumps({"predictions": [0.5] * 200})
        conf = folder / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, port=port, body=body.replace('"', '\\"')))
        stack.enter_context(process("nginx", "-c", str(conf)))
        backend = f"http://127.0.0.1:{port}"
        gateways = [
            Gateway(stack, folder / what, backend, max_rate=options.max_rate, shadowed=what == "with")
            for what in ("without", "with")
        ]
        for gateway in gateways:
            gateway.turn(1)
        turns: list[list[Turn]] = [[], []]
        for number in range(options.rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                turns[which].append(gateways[which].turn(options.seconds))
        report(turns, json.loads(gateways[1].chips("shadow", "bench", "--status", "--json")))


def report(turns: list[list[Turn]], found: dict[str, object]) -> None:
    rounds = len(turns[0])
    print(f"{rounds} rounds: medians, and ranges in brackets")
    print(f"{'':<22}{'without':>26}{'with':>26}{'with/without':>24}   slower in")
    for name in ("p50", "p99", "cpu_us"):
        sides = [[getattr(turn, name) for turn in side] for side in turns]
        ratios = [b / a for a, b in zip(*sides, strict=True)]
        slower = sum(ratio > 1 for ratio in ratios)
        shown = "".join(f"{_range(side, 1):>26}" for side in sides)
        print(f"{name:<22}{shown}{_range(ratios, 3):>24}   {slower} of {rounds}")
    print(f"{'comparing, us of CPU':<22}{'':>26}{_range([turn.comparer_us for turn in turns[1]], 1):>26}")
    print(f"sampled {found['sampled']}, compared {found['compared']}, left out {found['dropped']}")


def _range(values: list[float], digits: int) -> str:
    median = statistics.median(values)
    return f"{median:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
