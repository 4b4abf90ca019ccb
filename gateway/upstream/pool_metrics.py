"""Metrics of the pools of connections to backends. They are gauges and counters."""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.upstream.connection_pool import Pool

_NAMED: Final = 500
_OTHER: Final = "other"

Reading = dict[str, dict[str, float]]


def pool_gauges(pools: Mapping[str, Pool]) -> Reading:
    """Gauges of the pools, by backend. They show connections, idle ones, waiting requests, open circuits."""
    return {
        "chips_pool_connections": _by_backend(pools, lambda pool: len(pool.idle) + len(pool.busy)),
        "chips_pool_idle_connections": _by_backend(pools, lambda pool: len(pool.idle)),
        "chips_pool_waiting_requests": _by_backend(pools, lambda pool: pool.waiting),
        "chips_breaker_open": _by_backend(pools, lambda pool: pool.circuit_open),
    }


def pool_counters(pools: Mapping[str, Pool]) -> Reading:
    """Counters of the pools, by backend.

    They count connections opened and reused, waits, failures, refusals of an open circuit.
    """
    return {
        "chips_pool_opens_total": _by_backend(pools, lambda pool: pool.opens),
        "chips_pool_reuses_total": _by_backend(pools, lambda pool: pool.reuses),
        "chips_pool_waits_total": _by_backend(pools, lambda pool: pool.waits),
        "chips_pool_failures_total": _by_backend(pools, lambda pool: pool.failures),
        "chips_breaker_refusals_total": _by_backend(pools, lambda pool: pool.refusals),
    }


def _by_backend(pools: Mapping[str, Pool], figure: Callable[[Pool], float]) -> dict[str, float]:
    """By scheme, host and port. The backends beyond the first `_NAMED` are told as one, so that labels stay bounded."""
    figures: dict[str, float] = {}
    for number, (name, pool) in enumerate(list(pools.items())):
        label = name if number < _NAMED else _OTHER
        figures[label] = figures.get(label, 0.0) + figure(pool)
    return figures
