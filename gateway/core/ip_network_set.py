"""A set of IP networks, to test whether it contains an address.

It also parses networks and addresses. A look-up costs the same for ten networks and for ten thousand.
"""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import TypeVar

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_OneVersion = TypeVar("_OneVersion", IPv4Network, IPv6Network)
_MAPPED_BITS = 96  # ::ffff:0:0/96 holds the IPv4 addresses


def parse_network(text: str) -> Network:
    """Parse an IP network or a single address.

    A network is `192.0.2.0/24` or `2001:db8::/32`. ValueError says what is wrong. A network of IPv4-mapped addresses becomes
    the IPv4 network, as `parse_address` does with an address: otherwise it would contain no caller.
    """
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        if "host bits set" in str(error):
            meant = ip_network(text.strip(), strict=False)
            raise ValueError(f"{text} has host bits set; did you mean {meant}?") from None
        raise ValueError(f"{text!r} is not an IP network such as 192.0.2.0/24 or 2001:db8::/32") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def parse_address(text: str) -> Address | None:
    """Parse an IP address; None where it is none.

    None means that it is in no network. The text may be as proxies write it, with a port or brackets. An IPv4-mapped IPv6 address becomes the
    IPv4 one.
    """
    text = text.strip()
    port = ""
    if text.startswith("["):  # RFC 7239 section 6: [2001:db8::1]:4711
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or "." in text.partition(":")[0]:
            return None
        port = port[1:]
    elif text.count(":") == 1:  # 192.0.2.1:4711
        text, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
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
    """An immutable set of IP networks.

    `address in networks` says whether one of them contains it. The first look-up of an address costs one hash per distinct
    prefix length, 32 or 128 at most, however many networks there are; later ones cost one hash. What is remembered is the
    verdict on that very address in this very set, so it can be neither wrong nor stale, and it is forgotten whole when it
    grows, so that no caller can fill the memory.
    """

    __slots__ = ("_by_prefix_4", "_by_prefix_6", "_known_4", "_known_6", "networks")

    REMEMBERED = 16_384

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self.networks = tuple(networks)
        self._by_prefix_4 = _by_prefix([n for n in self.networks if isinstance(n, IPv4Network)])
        self._by_prefix_6 = _by_prefix([n for n in self.networks if isinstance(n, IPv6Network)])
        self._known_4: dict[int, bool] = {}
        self._known_6: dict[int, bool] = {}

    def __contains__(self, address: Address) -> bool:
        number = address.__int__()  # as int(address), at a fifth of its cost
        known = self._known_4 if address.__class__ is IPv4Address else self._known_6
        verdict = known.get(number)
        if verdict is None:
            by_prefix = self._by_prefix_4 if address.version == 4 else self._by_prefix_6
            verdict = any(number >> shift in prefixes for shift, prefixes in by_prefix)
            if len(known) >= self.REMEMBERED:
                known.clear()
            known[number] = verdict
        return verdict

    def __len__(self) -> int:
        return len(self.networks)

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.networks[:5]))
        return f"NetworkSet({shown}{', …' if len(self) > 5 else ''})"


def _by_prefix(networks: list[_OneVersion]) -> tuple[tuple[int, set[int]], ...]:
    """The prefixes as numbers, by how many bits of an address are shifted out to compare it with them."""
    by_prefix: dict[int, set[int]] = {}
    for network in collapse_addresses(networks):
        shift = network.max_prefixlen - network.prefixlen
        by_prefix.setdefault(shift, set()).add(int(network.network_address) >> shift)
    return tuple(by_prefix.items())


_EMBEDS_IPV4 = NetworkSet(map(parse_network, ("64:ff9b::/96", "::/96")))


def embedded_ipv4_addresses(address: Address) -> list[Address]:
    """The IPv4 addresses embedded in an IPv6 address.

    They are IPv4-mapped, 6to4, Teredo, and those in the last 32 bits (NAT64).
    """
    if isinstance(address, IPv4Address):
        return []
    inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        inner += address.teredo
    if address in _EMBEDS_IPV4 and int(address) > 1:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in inner if each is not None]
