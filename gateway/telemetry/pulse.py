"""What happens by the clock, in a thread: slow becomes relative to lately, figures become history, workers tell each other."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gateway.telemetry.merge import merge_states, quantile
from gateway.telemetry.metrics import Metrics, Series, State
from gateway.telemetry.store import TICK_S, Tick
from gateway.telemetry.table import LATENCY_BOUNDS

_log = logging.getLogger(__name__)

BEAT_S = 1.0
_SLOW_EVERY = 5  # beats
_FADE = 0.8  # what a request weighs is a tenth after ten rounds, a little under a minute
_ENOUGH = 100.0  # of them, before a percentile means something
_ALIVE_S = 10.0  # a worker whose figures are older has gone; its counters still count
_SUFFIX = ".state"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(State).decode

WriteTicks = Callable[[Sequence[Tick]], None]


class Slowness:
    """Sets each series' `slow_s` to the 99th percentile of about the last minute."""

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


class History:
    """The difference of each series to the tick before."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], tuple[list[int], int]] = {}

    def ticks(self, every: Sequence[Series], at: int) -> list[Tick]:
        ticks = []
        for series in every:
            key = series.model, series.version
            buckets, failed = self._before.get(key) or ([0] * len(series.request), 0)
            now = list(series.request)
            difference = [n - b for n, b in zip(now, buckets, strict=True)]
            if requests := sum(difference):
                ticks.append(Tick(at, *key, requests, series.failed - failed, difference))
            self._before[key] = now, series.failed
        return ticks


class Shared:
    """Figures of all workers: this one's own, and what the others last wrote into the folder they share.

    A worker writes once a second and once more when it ends. The file of one that has ended stays, for a counter must
    not fall; its gauges do not.
    """

    def __init__(self, metrics: Metrics, folder: Path | None, worker: str) -> None:
        self._metrics = metrics
        self._folder = folder
        self._own = f"{worker}{_SUFFIX}"

    def write(self) -> None:
        if self._folder is None:
            return
        draft = self._folder / f"{self._own}.draft"
        draft.write_bytes(_encode(self._metrics.state()))
        draft.replace(self._folder / self._own)

    def total(self) -> State:
        states = [self._metrics.state()]
        if self._folder is not None:
            for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
                if path.name == self._own:
                    continue
                with contextlib.suppress(OSError, msgspec.MsgspecError):
                    state = _decode(path.read_bytes())
                    if time.time() - state.at > _ALIVE_S:
                        state.gauges = {}
                    states.append(state)
        return merge_states(states)


class Pulse:
    def __init__(self, metrics: Metrics, shared: Shared, write_ticks: WriteTicks | None) -> None:
        self._metrics = metrics
        self._shared = shared
        self._write_ticks = write_ticks
        self._slowness = Slowness()
        self._history = History()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        beat = 0
        last_tick = time.time() // TICK_S
        while not self._stopping.wait(BEAT_S):
            beat += 1
            try:
                if beat % _SLOW_EVERY == 0:
                    self._slowness.update(self._metrics.all_series())
                tick = time.time() // TICK_S
                if tick != last_tick:
                    last_tick = tick
                    self._tick(int(tick) * TICK_S)
                self._shared.write()
            except Exception:  # noqa: BLE001  (a full disk is no reason to stop counting)
                if beat < _SLOW_EVERY or beat % 60 == 0:
                    _log.exception("the figures of this process cannot be passed on")
        with contextlib.suppress(Exception):
            self._tick(int(time.time()))
            self._shared.write()

    def _tick(self, at: int) -> None:
        if self._write_ticks is not None:
            ticks = self._history.ticks(self._metrics.all_series(), at)
            if ticks:
                self._write_ticks(ticks)
