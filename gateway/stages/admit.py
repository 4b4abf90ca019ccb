"""Admit callers whose address is on the allowlist."""

from collections.abc import Sequence

from gateway.core.errors import AddressNotAllowed
from gateway.core.exchange import Exchange
from gateway.core.networks import Network, NetworkSet, parse_network

LOOPBACK = (parse_network("127.0.0.0/8"), parse_network("::1/128"))


class Admit:
    """Refuse a request whose address is in none of `networks`.

    No networks at all means loopback only: a gateway that nobody has configured serves its own machine and nobody else.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = NetworkSet(networks or LOOPBACK)

    def __call__(self, exchange: Exchange) -> None:
        address = exchange.address
        if address is None or address not in self._networks:
            raise AddressNotAllowed(
                "Your address is not on this gateway's allowlist. Ask its operator to add "
                f"{address if address is not None else 'it'}."
            )
