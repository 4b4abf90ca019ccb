"""Sets of IP networks, compiled so that a look-up costs the same for ten networks and for ten thousand."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def parse_network(text: str) -> Network:
    """Parse `192.0.2.0/24`, `2001:db8::/32` or one address; ValueError says what is wrong."""
    try:
        return ip_network(text.strip())
    except ValueError as error:
        if "host bits set" in str(error):
            meant = ip_network(text.strip(), strict=False)
            raise ValueError(f"{text} has host bits set; did you mean {meant}?") from None
        raise ValueError(f"{text!r} is not an IP network such as 192.0.2.0/24 or 2001:db8::/32") from None


def parse_address(text: str) -> Address | None:
    """Parse an address as a proxy writes it: with a port or brackets, an IPv4-mapped IPv6 address as the IPv4 one.

    None where it is no address: whatever that is, it is in no network.
    """
    text = text.strip()
    if text.startswith("["):  # RFC 7239 section 6: [2001:db8::1]:4711
        text, bracket, _ = text[1:].partition("]")
        if not bracket:
            return None
    elif text.count(":") == 1:  # 192.0.2.1:4711
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            address = IPv6Address(int(address))
        return address.ipv4_mapped or address
    return address


class NetworkSet:
    """An immutable set of networks. A look-up is one hash per distinct prefix length (33 + 129 at most)."""

    __slots__ = ("_by_prefix_4", "_by_prefix_6", "size")

    def __init__(self, networks: Iterable[Network]) -> None:
        by_prefix: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        self.size = 0
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            prefixes = by_prefix[network.version].setdefault(shift, set())
            prefixes.add(int(network.network_address) >> shift)
            self.size += 1
        self._by_prefix_4 = tuple(by_prefix[4].items())
        self._by_prefix_6 = tuple(by_prefix[6].items())

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        by_prefix = self._by_prefix_4 if address.version == 4 else self._by_prefix_6
        return any(number >> shift in prefixes for shift, prefixes in by_prefix)
