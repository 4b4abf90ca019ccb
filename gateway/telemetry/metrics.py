"""The metrics of this process.

Its counters and histograms are by model and version. They are plain lists and dictionaries, because every request pays
for them. No locks: only the event loop writes. A reader in another thread sees each number whole, but not all numbers
at one moment.
"""

import resource
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gateway.core.exchange import Exchange
from gateway.core.principal import Principal
from gateway.telemetry.metric_catalog import LATENCY_BOUNDS, OVERHEAD_BOUNDS

CLIENT_CLOSED_REQUEST: Final = 499  # nginx's status for a caller who left; never sent, only recorded
OTHER: Final = "other"  # the label of everything beyond the bound on labels
OWN_PAGES: Final = "own-pages"  # the version of what asked the gateway itself, not a model
COLD_START_S: Final = 1.0
_NEVER: Final = float("inf")
_LATENCY_BUCKETS: Final = len(LATENCY_BOUNDS) + 1


@dataclass(
    slots=True
)  # which the interpreter writes to much faster than to a Struct; msgspec encodes both alike
class CallerUsage:
    """What one caller has used of a model: requests, backend seconds and bytes.

    In a `Series` it is of one version; `usage_by_caller` adds all versions up.
    """

    team: str = ""
    requests: int = 0
    refused: int = 0  # answered with a 4xx status
    failed: int = 0  # answered with a 5xx status
    backend_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    reached: int = 0  # of the requests: sent to the backend


@dataclass(slots=True)
class Series:
    """The counts and histograms of one version of one model.

    Both names are empty for requests that reached no model; the version is `OWN_PAGES` where they asked for none.
    """

    model: str
    version: str
    statuses: dict[int, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)  # by "side code"
    request: list[int] = field(default_factory=lambda: [0] * _LATENCY_BUCKETS)
    request_s: float = 0.0
    backend: list[int] = field(default_factory=lambda: [0] * _LATENCY_BUCKETS)
    backend_s: float = 0.0
    queued: int = 0
    queued_s: float = 0.0
    retries: int = 0
    cold_starts: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    failed: int = 0  # on our or the backend's side
    late: int = 0  # answered, later than the model's objective
    slow_s: float = _NEVER  # the moving 99th percentile; what takes longer is kept
    callers: dict[str, CallerUsage] = field(default_factory=dict)


@dataclass(slots=True)
class MetricsState:
    """All metrics of one process at one time. States of several processes add up (`telemetry.merge_metrics`)."""

    at: float = 0.0  # seconds since the epoch
    series: dict[str, dict[str, Series]] = field(default_factory=dict)  # by model and version
    labels: dict[str, str] = field(default_factory=dict)  # of callers, by caller; for people, not for metrics
    overhead: list[int] = field(default_factory=lambda: [0] * (len(OVERHEAD_BOUNDS) + 1))
    overhead_s: float = 0.0
    kept: dict[str, int] = field(default_factory=dict)
    # read when somebody asks: metric name -> label value (or "") -> number
    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    gauges: dict[str, dict[str, float]] = field(default_factory=dict)


Reading = dict[str, dict[str, float]]
CallerId = str
ModelName = str


class RequestMetrics:
    """The metrics of one process: finished requests, by model, version and caller.

    `observe` counts one; `live_state` returns the counts. At most `limit` pairs of model and version, and as many of these with
    a caller, are counted separately. Further versions of a model that is known are counted together; callers beyond the
    limit as what `overflow_caller_labels` returns: a caller and a team.
    """

    def __init__(self, *, limit: int = 5000) -> None:
        self._limit = limit
        self._pairs = 0
        self._usages = 0
        self._state = MetricsState()
        self._series = self._state.series
        self.overflow_caller_labels: Callable[[Principal], tuple[str, str]] = _other
        self._gauges: list[Callable[[], Reading]] = []
        self._counters: list[Callable[[], Reading]] = []

    def add_readers(
        self, *, gauges: Callable[[], Reading] | None = None, counters: Callable[[], Reading] | None = None
    ) -> None:
        """Add functions that read the gauges and counters of other parts. They are called each time the state is asked for."""
        if gauges is not None:
            self._gauges.append(gauges)
        if counters is not None:
            self._counters.append(counters)

    def observe(self, exchange: Exchange, status: int) -> Series:
        """Count a finished request. Returns the series it belongs to."""
        duration_s = exchange.ended - exchange.arrived
        if exchange.routed:
            series = self._observe_routed(exchange, status, duration_s)
        else:
            target = getattr(exchange, "target", None)  # absent where it could not be read
            version = OWN_PAGES if target is not None and not target.model else ""
            try:
                series = self._series[""][version]
            except KeyError:
                series = self._new_series("", version)
        statuses = series.statuses
        statuses[status] = statuses.get(status, 0) + 1
        series.request[bisect_left(LATENCY_BOUNDS, duration_s)] += 1
        series.request_s += duration_s
        series.bytes_in += exchange.bytes_in
        series.bytes_out += exchange.bytes_out
        if status >= 400:
            side, code = responsible_side(exchange, status)
            if side != "caller":
                series.failed += 1
            label = f"{side} {code}"
            series.errors[label] = series.errors.get(label, 0) + 1
        return series

    def _observe_routed(self, exchange: Exchange, status: int, duration_s: float) -> Series:
        model = exchange.model
        name = model.name
        version = exchange.backend.version
        try:
            series = self._series[name][version]
        except KeyError:
            series = self._new_series(name, version)
        backend_s, reached = 0.0, 0
        if exchange.attempts:
            reached = 1
            backend_s = self._observe_attempts(exchange, series)
        limit_s = model.policy.latency_s
        if limit_s is not None and duration_s > limit_s and status < 500:
            series.late += 1
        if exchange.authenticated:
            caller = exchange.principal.id
            try:
                usage = series.callers[caller]
            except KeyError:
                usage = self._new_usage(exchange.principal, series)
            usage.requests += 1
            usage.reached += reached
            usage.backend_s += backend_s
            usage.bytes_in += exchange.bytes_in
            usage.bytes_out += exchange.bytes_out
            if status >= 500:
                usage.failed += 1
            elif status >= 400:
                usage.refused += 1
        if exchange.queued_s:
            series.queued += 1
            series.queued_s += exchange.queued_s
        state = self._state
        overhead_s = duration_s - backend_s - exchange.queued_s - exchange.buffering_s - exchange.rate_limit_s
        state.overhead[bisect_left(OVERHEAD_BOUNDS, overhead_s)] += 1
        state.overhead_s += overhead_s
        return series

    def _observe_attempts(self, exchange: Exchange, series: Series) -> float:
        attempts = exchange.attempts
        last = attempts[-1]
        backend_s = (last.ended or exchange.ended) - last.began
        if len(attempts) > 1:
            series.retries += len(attempts) - 1
            backend_s += sum((attempt.ended or exchange.ended) - attempt.began for attempt in attempts[:-1])
        series.backend[bisect_left(LATENCY_BOUNDS, backend_s)] += 1
        series.backend_s += backend_s
        if backend_s > COLD_START_S and is_cold_start(exchange):
            series.cold_starts += 1
        return backend_s

    def count_kept_trace(self, why: str) -> None:
        kept = self._state.kept
        kept[why] = kept.get(why, 0) + 1

    def live_state(self) -> MetricsState:
        """The live state of the metrics, with fresh gauges. It is not a copy: encode it or merge it, do not change it."""
        state = self._state
        state.at = time.time()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        counters = {"chips_process_cpu_seconds_total": {"": usage.ru_utime + usage.ru_stime}}
        gauges = {"chips_workers": {"": 1.0}, "chips_process_memory_bytes": {"": _resident_bytes()}}
        for read in self._counters:
            counters |= read()
        for read in self._gauges:
            gauges |= read()
        state.counters, state.gauges = counters, gauges  # replaced whole, because several threads read them
        return state

    def all_series(self) -> list[Series]:
        return [series for versions in list(self._series.values()) for series in list(versions.values())]

    def _new_series(self, model: str, version: str) -> Series:
        if self._pairs >= self._limit and model:
            version = OTHER
            if model not in self._series:
                model = OTHER
        versions = self._series.setdefault(model, {})
        if version not in versions:
            versions[version] = Series(model, version)
            self._pairs += 1
        return versions[version]

    def _new_usage(self, principal: Principal, series: Series) -> CallerUsage:
        caller, team = principal.id, principal.team
        if self._usages >= self._limit:
            caller, team = self.overflow_caller_labels(principal)
        if caller == principal.id:
            self._state.labels[caller] = principal.label
        if caller not in series.callers:
            series.callers[caller] = CallerUsage(team)
            self._usages += 1
        return series.callers[caller]


def _other(_: Principal) -> tuple[str, str]:
    return OTHER, ""


def usage_by_caller(state: MetricsState) -> dict[CallerId, dict[ModelName, CallerUsage]]:
    """The usage of each caller of each model. All versions of a model are added up."""
    found: dict[CallerId, dict[ModelName, CallerUsage]] = {}
    for versions in list(state.series.values()):
        for series in list(versions.values()):
            for caller, usage in list(series.callers.items()):
                total = found.setdefault(caller, {}).setdefault(series.model, CallerUsage(usage.team))
                add_usage(total, usage)
    return found


def add_usage(total: CallerUsage, usage: CallerUsage) -> None:
    """Add the counts of `usage` to `total`."""
    total.requests += usage.requests
    total.reached += usage.reached
    total.refused += usage.refused
    total.failed += usage.failed
    total.backend_s += usage.backend_s
    total.bytes_in += usage.bytes_in
    total.bytes_out += usage.bytes_out


def responsible_side(exchange: Exchange, status: int) -> tuple[str, str]:
    """The side responsible for a failed request, and the error's code.

    It is the side that can fix it: `caller`, `backend` or `gateway`.
    """
    error = exchange.error
    if exchange.caller_disconnected:
        return "caller", "left"
    if error is not None:
        return error.side, error.code
    return ("backend", "answered-5xx") if status >= 500 else ("caller", "answered-4xx")


def is_cold_start(exchange: Exchange) -> bool:
    """Whether the last response came so much later than the backend's Server-Timing accounts for that it waited for a cold start.

    The difference must be more than `COLD_START_S`. False without Server-Timing: then nothing is known.
    """
    last = exchange.attempts[-1]
    if last.answered is None or exchange.backend_server_timing is None:
        return False
    accounted_s = sum(phase.duration_s for phase in parse_server_timing(exchange.backend_server_timing))
    return last.answered - (last.sent or last.began) - accounted_s > COLD_START_S


class ServerTimingPhase(msgspec.Struct, frozen=True):
    """One phase of a Server-Timing field: name and duration."""

    name: str
    duration_s: float


_MAX_PHASES = 16


def parse_server_timing(value: bytes) -> list[ServerTimingPhase]:
    """Parse a `Server-Timing` field into its phases.

    Phases without a duration and parts that cannot be read are left out: a backend wrote it.
    """
    phases = []
    for entry in value[:2048].decode("latin-1").split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, text = parameter.partition("=")
            if key.strip().lower() == "dur" and name:
                try:
                    duration_s = float(text.strip().strip('"')) / 1000
                except ValueError:
                    continue
                if 0 <= duration_s < 86_400:
                    phases.append(ServerTimingPhase(name[:40], duration_s))
    return phases[:_MAX_PHASES]


def _resident_bytes() -> float:
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123  (read at each scrape; the shortest way)
            return float(int(statm.read().split()[1]) * resource.getpagesize())
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
