"""Aggregate a worker's metrics each second: slow-request thresholds, ticks, and the total of all workers.

A thread does so. Workers share their metrics through files.
"""

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from operator import sub
from pathlib import Path

import msgspec

from gateway.telemetry.merge_metrics import merge_states, quantile
from gateway.telemetry.metric_catalog import LATENCY_BOUNDS
from gateway.telemetry.metrics import MetricsState, RequestMetrics, Series
from gateway.telemetry.recorded_request_store import COARSE_S, FINE_S, Tick
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor, join_in_steps

_log = logging.getLogger(__name__)

INTERVAL_S = 1.0
_SLOW_EVERY = 5  # beats
_FADE = 0.8  # what a request weighs is a tenth after ten rounds, a little under a minute
_ENOUGH = 100.0  # of them, before a percentile means something
_ALIVE_S = 10.0  # a worker whose figures are older has gone; its counters still count
_FOLD_EVERY = 10  # beats
_SUFFIX = ".state"
_DRAFT = ".draft"
_ENDED = "ended.all"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MetricsState).decode

WriteTicks = Callable[[Sequence[Tick]], None]


class SlowThresholds:
    """Updates the thresholds above which requests are slow.

    That of a series is the 99th percentile of about the last minute. It is the series' `slow_s`.
    """

    def __init__(self) -> None:
        self._weights: dict[tuple[str, str], tuple[list[int], list[float]]] = {}

    def update(self, every: Sequence[Series]) -> None:
        for series in every:
            before, weights = self._weights.get((series.model, series.version)) or (
                [0] * len(series.request),
                [0.0] * len(series.request),
            )
            now = list(series.request)
            weights = [w * _FADE + (n - b) for w, n, b in zip(weights, now, before, strict=True)]
            self._weights[series.model, series.version] = now, weights
            if sum(weights) >= _ENOUGH:
                series.slow_s = quantile(0.99, weights, LATENCY_BOUNDS) or series.slow_s


class _Counted(msgspec.Struct):
    """What a series had counted at the last tick."""

    buckets: list[int]
    backend: list[int]
    errors: dict[str, int]
    failed: int
    late: int


class TickBuilder:
    """Builds ticks: the counts of each series in the last `seconds`. A tick ends at a multiple of `seconds`."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._before: dict[tuple[str, str], _Counted] = {}
        self._last = time.time() // seconds

    def end_of_due_tick(self, now: float) -> int | None:
        """The end of the tick that is due by `now`. It is in seconds since the epoch; None where no tick is due."""
        tick = now // self.seconds
        if tick == self._last:
            return None
        self._last = tick
        return int(tick) * self.seconds

    def take_ticks(self, every: Sequence[Series], at: int) -> list[Tick]:
        """Take the ticks that end `at`: one for each series that counted something."""
        ticks = []
        for series in every:
            key = series.model, series.version
            zeros = [0] * len(series.request)
            before = self._before.get(key) or _Counted(zeros, zeros, {}, 0, 0)
            now = _Counted(
                list(series.request), list(series.backend), dict(series.errors), series.failed, series.late
            )
            buckets = list(map(sub, now.buckets, before.buckets))
            if requests := sum(buckets):
                errors = {label: n - before.errors.get(label, 0) for label, n in now.errors.items()}
                tick = Tick(
                    seconds=self.seconds,
                    at=at,
                    model=series.model,
                    version=series.version,
                    requests=requests,
                    failed=now.failed - before.failed,
                    late=now.late - before.late,
                    buckets=buckets,
                    backend=list(map(sub, now.backend, before.backend)),
                    errors={label: n for label, n in errors.items() if n},
                )
                ticks.append(tick)
            self._before[key] = now
        return ticks


class _Ended(msgspec.Struct):
    """What workers that have ended had counted, and whose files are in here already, as long as they still lie about."""

    number: int = 0  # grows with each folding
    state: MetricsState = msgspec.field(default_factory=MetricsState)
    folded: list[str] = []


_decode_ended = msgspec.msgpack.Decoder(_Ended).decode


class SharedWorkerMetrics:
    """The metrics of all workers of a gateway, shared through files.

    They are this worker's own, and what the others last wrote. A worker writes once a second, and once more when it ends. The
    counters of a worker that has ended are kept, because counters must not fall; its gauges are not. `fold_ended_workers`
    merges the files of ended workers into one, so that a worker that ends again and again does not fill the folder.
    """

    def __init__(self, metrics: RequestMetrics, folder: Path | None, worker: str) -> None:
        self._metrics = metrics
        self._folder = folder
        self._own = f"{worker}{_SUFFIX}"

    def write_own(self) -> None:
        if self._folder is not None:
            _replace(self._folder / self._own, _encode(self._metrics.live_state()))

    def total(self) -> MetricsState:
        if self._folder is None:
            return merge_states([self._metrics.live_state()])
        ended = self._ended(self._folder)
        while True:
            others = [
                state
                for path in sorted(self._folder.glob(f"*{_SUFFIX}"))
                if path.name != self._own and path.name not in ended.folded
                if (state := _read(path)) is not None
            ]
            before, ended = ended, self._ended(self._folder)
            if ended.number == before.number:  # else some were folded meanwhile
                return merge_states([self._metrics.live_state(), ended.state, *others])

    def fold_ended_workers(self) -> None:
        """Merge the metrics files of ended workers into one. The first worker that comes does it for all."""
        if self._folder is None or not self._gone(self._folder):
            return
        with (self._folder / "fold.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            gone = self._gone(self._folder)
            if not gone:
                return  # another worker was faster
            ended = self._ended(self._folder)
            # In this order, because this process may be killed at any time: a file counts until it is recorded here.
            states = [
                state for path in gone if path.name not in ended.folded if (state := _read(path)) is not None
            ]
            total = merge_states([ended.state, *states])
            total.gauges = {}
            now = _Ended(ended.number + 1, total, [path.name for path in gone])
            _replace(self._folder / _ENDED, _encode(now))
            for path in gone:
                path.unlink(missing_ok=True)
                Path(f"{path}{_DRAFT}").unlink(missing_ok=True)
            now.folded = []  # a later worker may get the process id, and so the name, of one of these
            _replace(self._folder / _ENDED, _encode(now))

    def _gone(self, folder: Path) -> list[Path]:
        """The files of workers that have ended."""
        return [
            path for path in sorted(folder.glob(f"*{_SUFFIX}")) if path.name != self._own and _has_ended(path)
        ]

    def _ended(self, folder: Path) -> _Ended:
        try:
            return _decode_ended((folder / _ENDED).read_bytes())
        except FileNotFoundError:
            return _Ended()


def _replace(path: Path, content: bytes) -> None:
    draft = Path(f"{path}{_DRAFT}")
    draft.write_bytes(content)
    draft.replace(path)


def _read(path: Path) -> MetricsState | None:
    try:
        state = _decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
    if time.time() - state.at > _ALIVE_S:
        state.gauges = {}
    return state


def _has_ended(path: Path) -> bool:
    """A worker's name ends with its process id. One whose id is another process's by now waits until that ends."""
    number = path.stem.rpartition("-")[2]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class MetricsAggregator:
    """The thread that aggregates this process's metrics periodically.

    It updates the thresholds, builds ticks, and writes the worker's file. Ticks are written where `write_ticks` is
    given. The thread calls `close_ticks` when it ends: what it opened is its own to close, also where nobody waits for it.
    """

    def __init__(
        self,
        metrics: RequestMetrics,
        shared: SharedWorkerMetrics,
        write_ticks: WriteTicks | None,
        *,
        close_ticks: Callable[[], None] | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._metrics = metrics
        self._shared = shared
        self._write_ticks = write_ticks
        self._close_ticks = close_ticks
        self._slowness = SlowThresholds()
        self._tick_builders = (TickBuilder(FINE_S), TickBuilder(COARSE_S))
        self._stopping = threading.Event()
        self._thread = (supervisor or Supervisor()).create_retrying_thread(
            "aggregation", self._run, interrupt_backoff=self._stopping
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        self._stopping.set()
        join_in_steps(self._thread, timeout_s)

    def _run(self, helper: HelperHealth) -> None:
        beat = 0
        while not self._stopping.wait(INTERVAL_S):
            beat += 1
            try:
                if beat % _SLOW_EVERY == 0:
                    self._slowness.update(self._metrics.all_series())
                self._tick(time.time())
                self._shared.write_own()
                if beat % _FOLD_EVERY == 0:
                    self._shared.fold_ended_workers()
            except Exception as error:  # noqa: BLE001  (a full disk is no reason to stop counting)
                helper.failed(error)
            else:
                helper.succeeded()
        with contextlib.suppress(Exception):
            self._tick(time.time(), last=True)
            self._shared.write_own()
        if self._close_ticks is not None:
            self._close_ticks()

    def _tick(self, now: float, *, last: bool = False) -> None:
        if self._write_ticks is None:
            return
        ticks: list[Tick] = []
        for builder in self._tick_builders:
            at = int(now // builder.seconds + 1) * builder.seconds if last else builder.end_of_due_tick(now)
            if at is not None:
                ticks += builder.take_ticks(self._metrics.all_series(), at)
        if ticks:
            self._write_ticks(ticks)
