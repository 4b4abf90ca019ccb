"""A quota of registry look-ups for each client IP address. So one client leaves the others theirs."""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from gateway.core.ip_network_set import Address

_REMEMBERED: Final = 10_000  # addresses; the ones longest unseen are forgotten, and start fresh
_BURST: Final = 10  # times what an address may have in a second
_PREFIX: Final = 64  # bits: what one caller with IPv6 has (RFC 6177)


class ClientLookupQuota:
    """A quota of registry look-ups for each client IP address.

    It is a token bucket: an address has `per_second` tokens, in bursts of ten times that. IPv6 addresses
    are counted by /64.
    """

    def __init__(self, *, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = per_second * _BURST
        self._clock = clock
        self._left: OrderedDict[int | None, tuple[float, float]] = OrderedDict()  # and as of when
        self.refused = 0

    def take(self, address: Address | None) -> bool:
        """Take a token for one look-up. False where none is left."""
        who, now = _owner(address), self._clock()
        left, counted_at = self._left.pop(who, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - counted_at) * self._per_second)
        taken = left >= 1
        self._left[who] = (left - 1 if taken else left, now)
        if len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        self.refused += not taken
        return taken

    def give_back(self, address: Address | None) -> None:
        """Give back a token that `take` took. Do so for a request that turned out to be a good one."""
        who = _owner(address)
        kept = self._left.get(who)
        if kept is not None:
            self._left[who] = (min(self._burst, kept[0] + 1), kept[1])


def _owner(address: Address | None) -> int | None:
    if address is None:
        return None
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return int(address) >> (128 - _PREFIX) << 33 if mapped is None else int(mapped)
    return int(address)
