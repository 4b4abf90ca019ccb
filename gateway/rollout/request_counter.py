"""Counts the requests of a rollout's two versions.

It counts errors, refusals, cold starts and latencies in this process. It does so only while a rollout runs. Latencies
go into logarithmic buckets, 32 for each doubling, so that a threshold is off by 2.2 % at most: the stable version's
quantiles are not known when a request is counted.
"""

import collections
from dataclasses import dataclass, field
from math import log2
from typing import Annotated, Final

from msgspec import Meta

from gateway.core.exchange import Exchange
from gateway.telemetry.metrics import CLIENT_CLOSED_REQUEST, is_cold_start, responsible_side

PER_DOUBLING: Final = 32
_UNIT_S: Final = 1e-6
_FOLD_AT: Final = 4096  # times; bounds what is kept of a window
_OFFSET: Final = -log2(_UNIT_S) * PER_DOUBLING
_SWITCHING_PROTOCOLS: Final = 101
_COLD_S: Final = 1.0  # shorter waits are not told apart from load


def latency_bucket(seconds: float) -> int:
    """The number of the latency bucket that a duration in seconds falls in.

    A bucket holds `bucket_lower_edge_s(bucket)` up to `bucket_lower_edge_s(bucket + 1)`.
    """
    return int(log2(seconds) * PER_DOUBLING + _OFFSET) if seconds > _UNIT_S else 0


def bucket_lower_edge_s(number: int) -> float:
    """The lower edge of a latency bucket, in seconds."""
    return float(2.0 ** (number / PER_DOUBLING)) * _UNIT_S


# In a report, which a gateway that was broken into may have written.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Bucket = Annotated[int, Meta(ge=0, le=4096)]  # far more than a lifetime


@dataclass(slots=True, kw_only=True)  # which the interpreter writes to faster than to a Struct
class Tally:
    """The request counts of one version in one window.

    `latency` is by bucket; of `requests`, `cold` are not in it. Raises ValueError for
    counts that no gateway can have counted: parts that are more than the requests.
    """

    requests: Count = 0
    errors: Count = 0  # that the backend is responsible for
    refusals: Count = 0  # the backend's own 4xx
    cold: Count = 0  # waited for an instance to start
    latency: dict[Bucket, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        failed = self.errors + self.refusals
        timed = self.cold + sum(self.latency.values())
        if max(failed, timed) > self.requests:
            raise ValueError(
                f"of {self.requests} requests, {failed} failed or were refused, and {timed} were timed or cold"
            )

    def add(self, other: "Tally") -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.refusals += other.refusals
        self.cold += other.cold
        for number, count in other.latency.items():
            self.latency[number] = self.latency.get(number, 0) + count


class VersionWindowCollector:
    """Collects the request counts of one version in one window.

    Times go into buckets a few thousand at once, so that few requests pay for that.
    """

    __slots__ = ("tally", "times_s")

    def __init__(self) -> None:
        self.tally = Tally()
        self.times_s: list[float] = []

    def fold_times_into_tally(self) -> Tally:
        """Fold the collected times into the window's tally, and return it. Times go into latency buckets; the tally goes on."""
        times_s, self.times_s = self.times_s, []
        tally = self.tally
        tally.requests += len(times_s)
        for number, count in collections.Counter(map(latency_bucket, times_s)).items():
            tally.latency[number] = tally.latency.get(number, 0) + count
        return tally


class RequestCounter:
    """Counts finished requests by model and version. It counts for the models in `collectors`. Call it with the exchange."""

    def __init__(self) -> None:
        self.collectors: dict[str, dict[str, VersionWindowCollector]] = {}

    def __call__(self, exchange: Exchange) -> None:
        """Every request pays for this while a rollout runs, so it is one function."""
        if not exchange.routed:
            return
        versions = self.collectors.get(exchange.model.name)
        collector = versions.get(exchange.backend.version) if versions is not None else None
        # A caller who names a version was not assigned to it by chance.
        if collector is None or exchange.assigned == "pin":
            return
        attempts = exchange.attempts
        ended, opening_s = exchange.ended, 0.0
        if exchange.status >= 400 or exchange.caller_disconnected:
            if not _counts_as_failed(exchange, collector.tally):
                return
        elif not attempts or exchange.status == _SWITCHING_PROTOCOLS:
            return  # a tunnel lasts as long as its caller wants
        if attempts:
            # What the caller's own connection took to read the answer, or to send the body, says nothing of the version. Nor does a
            # new connection: a small share is too little to keep one open, and the stable version has plenty.
            last = attempts[-1]
            ended, opening_s = last.ended or ended, last.opening_s
        duration_s = ended - exchange.arrived - exchange.buffering_s - exchange.rate_limit_s - opening_s
        if duration_s > _COLD_S and attempts and is_cold_start(exchange):
            collector.tally.requests += 1
            collector.tally.cold += 1
            return
        times_s = collector.times_s
        times_s.append(duration_s)
        if len(times_s) >= _FOLD_AT:
            collector.fold_times_into_tally()


def _counts_as_failed(exchange: Exchange, tally: Tally) -> bool:
    """Count whose fault it was; False where the request never reached the backend, and that was not the backend's fault."""
    status = CLIENT_CLOSED_REQUEST if exchange.caller_disconnected else exchange.status
    side, code = responsible_side(exchange, status)
    if side == "backend":
        tally.errors += 1
    elif not exchange.attempts:
        return False
    elif code == "answered-4xx":
        tally.refusals += 1
    return True
