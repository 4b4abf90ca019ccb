"""Decides which hosts the gateway may connect to.

The egress policy says which host names may be registered as backends, and which addresses may be connected to. A name is
judged when it is registered; what it resolves to is judged each time before a connection is opened, on the very addresses
that are then connected to. So a name that points elsewhere later (DNS rebinding) opens nothing.
"""

import socket
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Final, Literal
from urllib.parse import urlsplit

from gateway.core.errors import UpstreamUnreachable
from gateway.core.ip_network_set import Address, Network, NetworkSet, embedded_ipv4_addresses, parse_network

Policy = Literal["local", "cloud"]

CLOUD_HOSTS: Final = ("*.run.app",)
# Services by which machines in a cloud learn their own secrets. No setting opens these.
_METADATA: Final = NetworkSet(
    map(
        parse_network,
        (
            *("169.254.0.0/16", "fe80::/10"),
            *("fd20:ce::/32", "fd00:ec2::/32"),  # Google's and Amazon's own, over IPv6
            *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
        ),
    )
)


class EgressRefused(OSError):
    """The egress policy does not allow the host or address. Its text is for the log and for the person who registers a backend, never for callers."""


class EgressPolicy:
    """Decides where the gateway may connect to. `local`: any name; this machine and private networks too. `cloud`: names in `hosts`, and public addresses only.

    `networks` are private networks in which backends may be, under either policy.
    """

    def __init__(
        self, policy: Policy, *, hosts: Iterable[str] = (), networks: Iterable[Network] = ()
    ) -> None:
        self._policy = policy
        self._named = tuple(host.lower() for host in hosts) if policy == "cloud" else ("*",)
        self._hosts = (*CLOUD_HOSTS, *self._named) if policy == "cloud" else self._named
        self._networks = NetworkSet(networks)

    def __call__(self, host: str, addresses: Sequence[str]) -> None:
        """Raise UpstreamUnreachable where the name, or one of its addresses, is not where a backend may be."""
        try:
            if host:
                self.check_host(host)
            for address in addresses:
                self.check_address(address)
        except EgressRefused as refused:
            raise UpstreamUnreachable("The backend cannot be reached.") from refused

    def resolve_and_check_url(self, url: str) -> None:
        """Check the host name of a URL that is to be registered, and the addresses that it resolves to now, if any.

        Raises EgressRefused. Blocks.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        self.check_host(host)
        try:
            found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # it may exist where the gateway runs, which will judge it
        for info in found:
            self.check_address(str(info[4][0]))

    def may_choose_audience(self, backend_url: str) -> bool:
        """Whether a backend may get ID tokens for another audience.

        The usual audience is its own origin. It may if the settings name the host of `backend_url`. Anybody can have a host
        under *.run.app, and could otherwise obtain a token that is valid at somebody else's service.
        """
        host = (urlsplit(backend_url).hostname or "").rstrip(".")
        return any(fnmatchcase(host, pattern) for pattern in self._named)

    def check_host(self, host: str) -> None:
        host = host.lower().rstrip(".").strip("[]")
        literal = _parse(host)
        if literal is not None:
            self.check_address(host)
            if self._policy == "cloud" and literal not in self._networks:
                raise EgressRefused(f"{host} is an address; register the backend by its name")
        elif not any(fnmatchcase(host, pattern) for pattern in self._hosts):
            known = ", ".join(self._hosts)
            raise EgressRefused(
                f"{host} is not a host that may be registered ({known}); upstream.hosts adds some"
            )

    def check_address(self, text: str) -> None:
        address = _parse(text)
        if address is None:
            raise EgressRefused(f"{text} is not an address")
        for each in embedded_ipv4_addresses(address) or [address]:
            if each in _METADATA or each.is_multicast or each.is_unspecified:
                raise EgressRefused(f"{text} is no address of a backend")
            if each in self._networks:
                continue
            if self._policy == "local" and (each.is_private or each.is_loopback):
                continue
            if not each.is_global or each.is_reserved:
                raise EgressRefused(f"{text} is not a public address; upstream.networks allows private ones")


def _parse(text: str) -> Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
