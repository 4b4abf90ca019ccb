"""Decide whether a request's trace is kept.

This happens at the start of the request. Failed and slow requests are kept anyway, at their end.
"""

from collections.abc import Sequence

from gateway.core.exchange import Exchange
from gateway.core.header_classification import KEEP_TRACE
from gateway.core.ip_network_set import Network, NetworkSet, parse_network
from gateway.core.per_process_random import random_share
from gateway.core.principal import OPERATE

_LOOPBACK = (parse_network("127.0.0.0/8"), parse_network("::1/128"))


class TraceSampling:
    """Decide which traces to keep.

    It keeps a share of all, and those that trusted callers ask for. The share is `ratio`. Callers in the `trusted` networks may
    ask by the sampled flag of their own trace, and callers that may operate the model by `X-Chips-Trace: 1`. The share is drawn
    at random and not computed from the trace id, which a caller may choose.
    """

    def __init__(self, *, ratio: float, trusted: Sequence[Network]) -> None:
        self._ratio = ratio
        self._trusted = NetworkSet(trusted or _LOOPBACK)

    def __call__(self, exchange: Exchange) -> None:
        own_ratio = exchange.model.policy.trace_ratio
        ratio = self._ratio if own_ratio is None else own_ratio
        if exchange.head.read[KEEP_TRACE] == b"1" and exchange.principal.may(OPERATE, exchange.model.name):
            exchange.keep_trace_because = "asked"
        elif exchange.trace.sampled and exchange.address is not None and exchange.address in self._trusted:
            exchange.keep_trace_because = "caller"
        elif ratio and random_share() < ratio:
            exchange.keep_trace_because = "sampled"
