"""Counts, in one process, what the two versions of a rollout did with their requests; only while a rollout runs.

Latencies go into logarithmic buckets, 32 for each doubling, so that a threshold is off by 2.2 % at most: the stable version's
quantiles are not known when a request is counted.
"""

import logging
from dataclasses import dataclass, field
from math import log2
from typing import Final

from gateway.core.exchange import Exchange
from gateway.telemetry.metrics import CLIENT_CLOSED_REQUEST, is_cold_start, responsible_side

_log = logging.getLogger(__name__)

PER_DOUBLING: Final = 32
_UNIT_S: Final = 1e-6
_OFFSET: Final = -log2(_UNIT_S) * PER_DOUBLING
_COLD_S: Final = 1.0  # shorter waits are not told apart from load


def latency_bucket(seconds: float) -> int:
    """The bucket of a duration: it holds `edge(bucket)` up to `edge(bucket + 1)`."""
    return int(log2(seconds) * PER_DOUBLING + _OFFSET) if seconds > _UNIT_S else 0


def edge(number: int) -> float:
    """The lower edge of a bucket, in seconds."""
    return float(2.0 ** (number / PER_DOUBLING)) * _UNIT_S


@dataclass(slots=True, kw_only=True)  # which the interpreter writes to faster than to a Struct
class Tally:
    """What one version did in one window. `latency` is by bucket; of `requests`, `cold` are not in it."""

    requests: int = 0
    errors: int = 0  # that the backend is responsible for
    refusals: int = 0  # the backend's own 4xx
    cold: int = 0  # waited for an instance to start
    latency: dict[int, int] = field(default_factory=dict)


class Counter:
    """Give it each finished exchange of the models in `tallies`, which is by model and version."""

    def __init__(self) -> None:
        self.tallies: dict[str, dict[str, Tally]] = {}

    def __call__(self, exchange: Exchange) -> None:
        if not exchange.routed or exchange.unlogged:
            return
        versions = self.tallies.get(exchange.model.name)
        if versions is None:
            return
        try:
            tally = versions.get(exchange.backend.version)
            # A caller who names a version was not assigned to it by chance.
            if tally is not None and exchange.assigned != "pin":
                _count(exchange, tally)
        except Exception:  # noqa: BLE001  (the answer has gone out; a fault in its count must not undo that)
            _log.exception("request %s could not be counted", exchange.request_id)


def _count(exchange: Exchange, tally: Tally) -> None:
    attempts = exchange.attempts
    if exchange.status >= 400 or exchange.caller_disconnected:
        status = CLIENT_CLOSED_REQUEST if exchange.caller_disconnected else exchange.status
        side, code = responsible_side(exchange, status)
        if side == "backend":
            tally.errors += 1
        elif not attempts:
            return  # it never reached the backend, and that was not the backend's fault
        elif code == "answered-4xx":
            tally.refusals += 1
    elif not attempts:
        return
    tally.requests += 1
    # What the caller's own connection took to send the body and to read the answer says nothing of the version.
    ended = (attempts[-1].ended if attempts else None) or exchange.ended
    duration_s = ended - exchange.arrived - exchange.buffering_s - exchange.rate_limit_s
    if duration_s > _COLD_S and attempts and is_cold_start(exchange):
        tally.cold += 1
        return
    number = (
        int(log2(duration_s) * PER_DOUBLING + _OFFSET) if duration_s > _UNIT_S else 0
    )  # `latency_bucket`, in line
    latency = tally.latency
    try:
        latency[number] += 1
    except KeyError:
        latency[number] = 1
