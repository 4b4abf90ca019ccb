"""Admit only callers whose IP address is on the gateway's allowlist. Others are refused (403)."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from gateway.core.errors import AddressNotAllowed
from gateway.core.exchange import Exchange
from gateway.core.ip_network_set import Address, Network, NetworkSet, parse_network
from gateway.registry.snapshot import Snapshot

LOOPBACK = (parse_network("127.0.0.0/8"), parse_network("::1/128"))


class GatewayIpAllowlist:
    """Admit only callers whose IP address is on the gateway's allowlist.

    Without `networks`, that is loopback: an unconfigured gateway serves its own machine and nobody else. The networks that
    the registry lists now are on it, too. Others are refused. An unknown address is in no network. With `report_only`,
    refusals are only counted and logged.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        snapshot: Callable[[], Snapshot | None] = lambda: None,
        *,
        report_only: bool = False,
    ) -> None:
        self._networks = NetworkSet(networks or LOOPBACK)
        self._snapshot = snapshot
        self._report_only = report_only
        self.refused = 0  # since the start, including those that report-only mode let pass

    def admits(self, address: Address | None) -> bool:
        """Whether the allowlist admits this address. Counts nothing."""
        if address is None:
            return False
        if self._networks.__contains__(address):  # as `in`, without the way through a slot of C
            return True
        snapshot = self._snapshot()
        return snapshot is not None and snapshot.networks.__contains__(address)

    def __call__(self, exchange: Exchange) -> AddressNotAllowed | None:
        if self.admits(exchange.address):
            return None
        self.refused += 1
        if self._report_only:
            exchange.report_only_refusals += (AddressNotAllowed.code,)
            return None
        return _refusal(exchange.remote_ip if exchange.address is not None else "it")


@lru_cache(maxsize=1024)
def _refusal(address: str) -> AddressNotAllowed:
    """The same refusal for all requests from `address`, so it must not be raised: an error collects its tracebacks."""
    return AddressNotAllowed(
        f"Your address is not on this gateway's allowlist. Ask its operator to add {address}."
    )
