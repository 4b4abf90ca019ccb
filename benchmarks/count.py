# Long: one table of counted functions, and the counting.
"""Instructions per request, counted exactly by callgrind: in all, by function of C, and inside functions of ours.

Unlike a time, such a count does not depend on what else the machine does, so it shows a change of one percent, and
`--check` holds the totals against `benchmarks/counts.json`. It does depend on the interpreter, on the libraries and on the
processor's instruction set: figures are kept for each such platform, and where there are none for this one, the check
says so and passes. `--write` adds them.

What is counted is user space alone: system calls and the cold caches of a real machine are for `make bench`.
"""

import argparse
import asyncio
import ctypes
import gc
import importlib
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
KEPT = HERE / "counts.json"
TOLERANCE = 0.01  # upwards
TOLERANCE_DOWN = 0.02  # what got better is written down sooner or later
REQUESTS = 300
WARM_UP = 200
PARTS = 6
PLAIN = "accepted, plain path"
HELD = ("accepted", "bad key", "not on the allow-list", "over its rate")
# The plain path is shown, but not held: it has sockets and the timers of a real loop, and its counts differ by five percent.
CASES = (*HELD, PLAIN)
LIBRARIES = ("aiohttp", "msgspec", "multidict", "uvloop", "yarl")

# Plain functions that a request goes through; each is counted with all that it calls.
FUNCTIONS = (
    "gateway.core.head_template_cache:HeadTemplateCache.lookup",
    "gateway.stages.read_request_context:ReadRequestContext.__call__",
    "gateway.stages.gateway_ip_allowlist:GatewayIpAllowlist.__call__",
    "gateway.stages.route_to_backend:RouteToBackend.try_nowait",
    "gateway.stages.cors:Cors.__call__",
    "gateway.stages.authenticate:Authenticate.try_nowait",
    "gateway.stages.authorize:Authorize.__call__",
    "gateway.stages.trace_sampling:TraceSampling.__call__",
    "gateway.stages.rate_limit:RateLimit.try_nowait",
    "gateway.stages.concurrency_limit:ConcurrencyLimit.try_nowait",
    "gateway.stages.adaptive_backend_concurrency:AdaptiveBackendConcurrency.try_nowait",
    "gateway.stages.forward:Forward._fields",
    "gateway.upstream.pooled_client:_begin",
    "gateway.upstream.response_head:CachingResponseHeadParser.__call__",
    "gateway.upstream.backend_connection:BackendConnection._finish",
    "gateway.server.caller_response:CallerResponse.relay",
    "gateway.pipeline:render_problem",
    "gateway.telemetry.metrics:RequestMetrics.observe",
    "gateway.telemetry.access_log:JsonAccessLogFormatter.__call__",
    "gateway.telemetry.request_recorder:RequestRecorder.__call__",
)


# -- inside valgrind


class Counters:
    """Callgrind's counters, from within."""

    def __init__(self, library: str) -> None:
        requests = ctypes.PyDLL(library)
        self.toggle = requests.count_toggle
        self._begin, self._end = requests.count_begin, requests.count_end

    def measure(self, name: str, once: Callable[[], None], *, inside: bool = False) -> None:
        """`REQUESTS` times; `inside`: only where something else toggles the collection."""
        gc.collect()
        numbers = range(REQUESTS)
        self._begin()
        if inside:
            self.toggle()
        for _ in numbers:
            once()
        if inside:
            self.toggle()
        self._end(name.encode())


def _seed() -> None:
    """The same requests are sampled in each run."""
    from gateway.core import per_process_random

    per_process_random._source.seed(1)


@contextmanager
def _even_clock() -> Iterator[None]:
    """Each look at a clock is 10 us after the last: how long a request takes here must not decide what it does.

    Otherwise a busy machine would see more seconds begin, and what is formatted once a second more often.
    """
    from gateway.telemetry import access_log

    real = time.monotonic, time.time
    time.monotonic, time.time = (itertools.count(now(), 1e-5).__next__ for now in real)
    access_log._clock = time.time
    try:
        yield
    finally:
        time.monotonic, time.time = real
        access_log._clock = time.time


@contextmanager
def _counted(counters: Counters, function: str) -> Iterator[list[int]]:
    """Collect only inside `function`; gives the number of calls, in a list."""
    module, _, path = function.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original, toggle, calls = getattr(owner, name), counters.toggle, [0]

    def counted(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        toggle()
        try:
            return original(*arguments, **more)
        finally:
            toggle()

    setattr(owner, name, counted)
    try:
        yield calls
    finally:
        setattr(owner, name, original)


def nothing(_: object = None) -> None:
    """The function that takes nothing: what counting itself takes."""


async def _child(library: str, *, functions: Sequence[str], case: str) -> None:
    from benchmarks.one_request import requests_in_process

    counters = Counters(library)
    sys.setswitchinterval(1000)  # no other thread gets a turn while a request is counted
    if case == PLAIN:
        await _count_plain(counters)
        return
    async with requests_in_process(**{"trace.recent_per_s": "0"}) as requests:
        once = requests[case].once
        _seed()
        with _even_clock():
            for _ in range(WARM_UP):
                once()
            counters.measure(case, once)
            for function in (f"{__name__}:nothing", *functions) if functions else ():
                with _counted(counters, function) as calls:
                    counted = sys.modules[__name__].nothing if function.endswith(":nothing") else once
                    for _ in range(20):
                        counted()
                    calls[0] = 0
                    counters.measure(function, counted, inside=True)
                print(json.dumps([function, calls[0]]), flush=True)


async def _count_plain(counters: Counters) -> None:
    """The plain path has a server and a client of aiohttp's: real sockets, and caller and backend in the same process."""
    from benchmarks.plain_request import plain_request

    async with plain_request(**{"trace.recent_per_s": "0"}) as ask:
        _seed()
        for _ in range(WARM_UP):
            await ask()
        for _ in range(PARTS):
            gc.collect()
            counters._begin()
            for _ in range(REQUESTS // PARTS):
                await ask()
            counters._end(PLAIN.encode())


# -- around it


def missing() -> str:
    """What counting needs and is not here; empty where nothing is missing."""
    for program, package in (("valgrind", "valgrind"), ("cc", "gcc")):
        if not shutil.which(program):
            return f"{program} is not installed (Debian: apt install {package})"
    return ""


def here() -> str:
    """The platform that a count depends on."""
    flags = Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split()
    vectors = "avx2" if "avx2" in flags else "no avx2"
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    return "; ".join(
        (
            f"{platform.machine()} with {vectors}",
            f"{platform.python_implementation()} {sys.version}".replace("\n", ""),
            " ".join(platform.libc_ver()),
            valgrind.strip(),
            *(f"{name} {version(name)}" for name in LIBRARIES),
        )
    )


class Counted:
    """What valgrind gave, per request."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self.by_c_function: Counter[str] = Counter()
        self.inside: dict[str, tuple[float, float]] = {}  # instructions and calls, by function


def count(cases: Sequence[str] = CASES, *, functions: Sequence[str] = ()) -> Counted:
    """Count each of `cases`; for the first one also inside each of `functions`.

    Each has a process of its own: what the interpreter has specialized for one case costs or saves another five percent.
    """
    counted = Counted()
    with tempfile.TemporaryDirectory(prefix="chips-count-") as folder:
        library = f"{folder}/callgrind.so"
        source = str(HERE / "tools" / "callgrind.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        for case in cases:
            _run(
                Path(folder) / "out", library, case, counted, functions=functions if case == cases[0] else ()
            )
    return counted


def _run(out: Path, library: str, case: str, counted: Counted, *, functions: Sequence[str]) -> None:
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"),
            *("--dump-line=no", "--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={out}"),
            *(sys.executable, "-m", "benchmarks.count", "--library", library, "--case", case),
            *("--inside", ",".join(functions)),
        ],
        cwd=HERE.parent,
        env={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(out.parent),
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"valgrind ended with {done.returncode}:\n{done.stderr[-3000:]}")
    # One dump for each measurement and thread; the first thread is the event loop's, and the others have no requests.
    dumps = [out.with_name(f"{out.name}.{number}-01") for number in range(1, 1 + PARTS + len(functions) + 1)]
    texts = [dump.read_text() for dump in dumps if dump.is_file()]
    for dump in out.parent.glob(f"{out.name}*"):
        dump.unlink()
    parts = PARTS if case == PLAIN else 1  # where timers run in between, the median leaves them out
    counted.totals[case] = median(map(_total, texts[:parts])) / (REQUESTS // parts)
    if functions:
        called = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        empty = _total(texts[1]) / REQUESTS
        counted.by_c_function = _by_c_function(texts[0])
        for (function, calls), text in zip(called[1:], texts[2:], strict=True):
            counted.inside[function] = (_total(text) - calls * empty) / REQUESTS, calls / REQUESTS


def _total(dump: str) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)$", dump, re.MULTILINE)
    if found is None:
        raise RuntimeError("callgrind wrote no total")
    return int(found[1])


def _by_c_function(text: str) -> Counter[str]:
    """What each function of C took itself, per request."""
    costs: Counter[str] = Counter()
    name, skip = "", False
    for line in text.splitlines():
        if line.startswith("fn="):
            name = line[3:]
        elif line.startswith("calls="):
            skip = True  # the next line is what the called function took
        elif line[:1].isdigit():
            if not skip:
                costs[name] += int(line.split()[1])
            skip = False
    return Counter({name: round(cost / REQUESTS) for name, cost in costs.items()})


def kept() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    return found


def differences(totals: dict[str, float], expected: dict[str, int]) -> list[str]:
    """A sentence for each total that is more than the tolerance above, or below, what was expected."""
    return [
        f"{name}: {total:.0f} instructions a request, where {expected[name]} were expected "
        f"({total / expected[name] - 1:+.1%}); `make count` shows where they go, and "
        "`make count COUNT=--write` keeps the new figure"
        for name, total in totals.items()
        if not -TOLERANCE_DOWN <= total / expected[name] - 1 <= TOLERANCE
    ]


def _print(counted: Counted) -> None:
    for name, total in counted.totals.items():
        print(f"{total:9.0f}  {name}")
    if counted.inside:
        print("\ninside, with all that they call (times a request, where that is not 1)")
        for function, (cost, calls) in sorted(counted.inside.items(), key=lambda item: -item[1][0]):
            print(f"{cost:9.0f}  {function}{'' if calls == 1 else f' ({calls:g})'}")
        print("\nin functions of C themselves")
        for name, cost in counted.by_c_function.most_common(25):
            print(f"{cost:9.0f}  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.count", description=__doc__)
    parser.add_argument("--check", action="store_true", help="hold the totals against benchmarks/counts.json")
    parser.add_argument("--write", action="store_true", help="keep the totals there, for this platform")
    parser.add_argument("--case", default="", help="such as 'accepted' or 'bad key'; all by default")
    parser.add_argument("--library", default="", help=argparse.SUPPRESS)
    parser.add_argument(
        "--inside", default=",".join(FUNCTIONS), help="comma-separated functions, each as module:Class.name"
    )
    given = parser.parse_args()
    functions = given.inside.split(",") if given.inside else []
    if given.case and given.case not in CASES:
        parser.error(f"there is no case {given.case!r}; there are {', '.join(CASES)}")
    if given.library:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_child(given.library, functions=functions, case=given.case))
        return 0
    if reason := missing():
        parser.error(reason)
    cases: tuple[str, ...] = HELD if given.check or given.write else CASES
    if given.case:
        cases = (given.case,)
    expected = kept().get(here())
    if given.check and expected is None:
        print(f"not checked: benchmarks/counts.json has no figures for {here()}; --write adds them")
        return 0
    if given.check or given.write or given.case == PLAIN:
        functions = []
    counted = count(cases, functions=functions)
    _print(counted)
    if given.write:
        totals = {name: round(total) for name, total in counted.totals.items()}
        every = {**kept(), here(): {**(expected or {}), **totals}}
        KEPT.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n")
    if given.check and expected is not None:
        problems = differences(counted.totals, expected)
        print("\n".join(problems) or "as expected")
        return bool(problems)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
