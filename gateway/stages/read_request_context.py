"""Read the request's context from its head. It is the request's id, trace context, target, and the caller's own address."""

import re
from collections.abc import Callable
from functools import lru_cache

from gateway.core.client_address import TrustedProxies
from gateway.core.errors import BadRequest, GatewayError, LoopDetected
from gateway.core.exchange import Exchange
from gateway.core.header_classification import (
    CLOUD_TRACE,
    HOST,
    REQUEST_ID,
    TRACEPARENT,
    VIA,
    RequestHead,
    classify_request_headers,
)
from gateway.core.ip_network_set import Address, parse_address
from gateway.core.request_target import parse_target
from gateway.core.trace_context import continue_trace, new_trace_id

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")

# RFC 9112 section 3.2: an invalid Host is refused. Stricter than RFC 3986, for backends build addresses of it.
_HOST = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?"
)


@lru_cache(maxsize=16384)
def _address_of(text: str) -> tuple[Address | None, str]:
    """The address, and its canonical text."""
    address = parse_address(text)
    return address, "" if address is None else str(address)


class ReadRequestContext:
    """Read the request's context from its head into the exchange.

    `trusted_proxies` decides which forwarding headers are believed. `name` is this deployment's name in Via (RFC 9110
    section 7.6.3), by which it detects its own requests (a loop).
    """

    def __init__(self, trusted_proxies: TrustedProxies, name: Callable[[], str] = lambda: "chips") -> None:
        self._client_address = trusted_proxies.client_address
        self._name = name

    def __call__(self, exchange: Exchange) -> None:
        known, name = exchange.cached_head, self._name()
        if known is not None and known.head is not None and known.via == name:
            head = known.head.with_variable_values(known.indexes, exchange.variable_values)
        else:
            try:
                head = self._read(exchange, name.encode("ascii"))
            except GatewayError:
                # A refusal, too, has an id and a trace to be found by.
                exchange.request_id = new_trace_id()
                exchange.trace = continue_trace(None)
                raise
            if known is not None:
                known.via, known.head = name, head.as_template(known.indexes)
                if exchange.variable_values:  # it was known by another name: its headers lack these
                    head = known.head.with_variable_values(known.indexes, exchange.variable_values)
        head.last_digest = exchange.last_digest
        exchange.head = head
        if head.address is not None:
            exchange.address = head.address
            exchange.remote_ip = head.address_text
        exchange.target = head.target
        read = head.read
        exchange.trace = continue_trace(read[TRACEPARENT], read[CLOUD_TRACE])
        given = read[REQUEST_ID]
        if given is not None and _REQUEST_ID.fullmatch(given):
            exchange.request_id = given.decode("ascii")
        else:
            exchange.request_id = new_trace_id()

    def _read(self, exchange: Exchange, name: bytes) -> RequestHead:
        """All that follows from the head, the peer and `name` alone, so that it can be remembered."""
        head = classify_request_headers(exchange.headers)
        caller = self._client_address(exchange.peer, head)
        if caller is not None:
            head.address, head.address_text = _address_of(caller)
        host = head.read[HOST]
        if host is not None and not _HOST.fullmatch(host):
            raise BadRequest("The header Host is not a host and port, such as chips.example.com:8080.")
        head.target = parse_target(
            exchange.raw_target,
            scheme=exchange.scheme,
            host=None if host is None else host.decode("latin-1"),
        )
        before = b"" if head.forwarded_for is None else head.forwarded_for + b", "
        head.way = b"X-Forwarded-For: %b%b\r\nX-Forwarded-Proto: %b\r\n%b%bVia: %b\r\n" % (
            before,
            exchange.peer.encode("ascii"),
            exchange.scheme.encode("ascii"),
            b"" if host is None else b"X-Forwarded-Host: %b\r\n" % host,
            b"X-Forwarded-Prefix: %b\r\n" % prefix
            if (prefix := head.target.stripped_prefix.encode("ascii"))
            else b"",
            _via(head.read[VIA], name),
        )
        return head


def _via(before: bytes | None, name: bytes) -> bytes:
    """Via as the backend is to see it. Raises LoopDetected where the request has been here before."""
    if before is None:
        return b"1.1 " + name
    for entry in before.lower().split(b","):
        if entry.split()[1:2] == [name]:
            raise LoopDetected(
                "The request came back to this gateway: a model is registered at an address that leads here. "
                "`chips models` lists the addresses."
            )
    return b"%b, 1.1 %b" % (before, name)
