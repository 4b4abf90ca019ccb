"""The client's IP address behind trusted proxies, from Forwarded or X-Forwarded-For.

Every proxy appends the address it was called from to the right of X-Forwarded-For (or Forwarded). What stands further
left was written by the caller, or by a proxy nobody here vouches for, and proves nothing. So the caller is the
right-most entry that no trusted proxy accounts for, and never anything to the left of it.
"""

import re
from collections.abc import Iterable

from gateway.core.header_classification import FORWARDED, FORWARDED_FOR, RequestHead
from gateway.core.ip_network_set import Network, NetworkSet, parse_address

_MAX_ENTRY_BYTES = 64
_MAX_ENTRIES = 32
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")*(?:,|\Z)')
_FOR = re.compile(r'(?:^|;)[ \t]*for[ \t]*=[ \t]*(?:"([^"\\]*)"|([^\s";,]+))[ \t]*(?=;|$)', re.IGNORECASE)


class TrustedProxies:
    """Which proxies are trusted to name the client.

    They are a fixed number of `hops` in front, or every peer in the networks `proxies`. With hops, a request whose header is
    missing or has fewer entries than there are hops did not come the way it should: its client is unknown, and is not taken
    to be the peer. With proxies, headers of a peer outside those networks are not read at all: the peer is the client.
    """

    def __init__(self, *, hops: int = 0, proxies: Iterable[Network] = (), forwarded: bool = False) -> None:
        self._hops = hops
        self._proxies = NetworkSet(proxies)
        self._forwarded = forwarded

    def client_address(self, peer: str, head: RequestHead) -> str | None:
        """The address of the client behind the trusted proxies.

        It is text; None where it is not known. Also sets `vouched` and `forwarded_for` of `head`.
        """
        if not self._hops and not self._proxies.networks:
            return peer
        if self._proxies.networks and not self._trusts(peer):
            return peer
        field = head.read[FORWARDED if self._forwarded else FORWARDED_FOR]
        if field is None:
            # A trusted proxy that names nobody speaks for itself; a missing hop is a way in that nobody planned.
            return peer if self._proxies.networks else None
        entries = _elements(field) if self._forwarded else _entries(field)
        caller = self._by_count(entries) if self._hops else self._by_network(entries)
        head.vouched = caller is not None
        head.forwarded_for = None if self._forwarded else field
        return caller

    def _by_count(self, entries: list[str]) -> str | None:
        return entries[-self._hops] if len(entries) >= self._hops else None

    def _by_network(self, entries: list[str]) -> str | None:
        for entry in reversed(entries):
            if not self._trusts(entry):
                return entry
        return entries[0] if entries else None

    def _trusts(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and address in self._proxies


def _entries(field: bytes) -> list[str]:
    last = field.rsplit(b",", _MAX_ENTRIES)
    return [entry.strip()[:_MAX_ENTRY_BYTES].decode("latin-1") for entry in last]


def _elements(field: bytes) -> list[str]:
    """The `for` of each element of Forwarded (RFC 7239); an element that cannot be read is an empty entry."""
    text = field.decode("latin-1")
    entries: list[str] = []
    position = 0
    while True:
        element = _ELEMENT.match(text, position)
        if element is None:
            return []  # an open quotation mark: everything after it could be anybody's
        found = _FOR.findall(element.group().rstrip(","))
        entries.append((found[0][0] or found[0][1])[:_MAX_ENTRY_BYTES] if len(found) == 1 else "")
        position = element.end()
        if not element.group().endswith(",") or position > len(text):
            return entries
