"""Send the request on to its backend, and the answer back to the caller."""

import time
from typing import TYPE_CHECKING

from gateway.core.exchange import Exchange
from gateway.core.headers import AUTHORIZATION, CRLF, HOST
from gateway.core.model import Backend
from gateway.core.paths import Target
from gateway.upstream.base import Outbound, Upstream

if TYPE_CHECKING:
    from gateway.auth.caller_token import CallerTokens


class Forward:
    def __init__(self, upstream: Upstream, signer: "CallerTokens | None" = None) -> None:
        self._upstream = upstream
        self._signer = signer

    async def __call__(self, exchange: Exchange) -> None:
        backend, target = exchange.backend, exchange.target
        outbound = Outbound(exchange.method, backend.url, path_at(backend, target), self._fields(exchange))
        await self._upstream.send(exchange, outbound)

    def _fields(self, exchange: Exchange) -> list[bytes]:
        """The caller's own fields and ours, flat: name with colon, value, CRLF."""
        head, principal = exchange.head, exchange.principal
        read = head.read
        forwarded_for = head.forwarded_for
        peer = exchange.peer.encode("latin-1")
        left_ms = int((exchange.deadline - time.monotonic()) * 1000)
        fields = head.outbound
        fields += (
            b"X-Forwarded-For: ", peer if forwarded_for is None else forwarded_for + b", " + peer, CRLF,
            b"X-Forwarded-Proto: ", exchange.scheme.encode("ascii"), CRLF,
            b"X-Request-Id: ", exchange.request_id.encode("ascii"), CRLF,
            b"X-Request-Timeout: ", str(max(left_ms, 1)).encode("ascii"), CRLF,
            b"X-Chips-Caller: ", principal.id.encode("ascii"), CRLF,
            b"Via: ", b"1.1 chips", CRLF,
        )  # fmt: skip
        if self._signer is not None:
            token = self._signer.token(principal.id, exchange.model.name)
            fields += (b"X-Chips-Caller-Token: ", token, CRLF)
        host = read[HOST]
        if host is not None:
            fields += (b"X-Forwarded-Host: ", host, CRLF)
        authorization = read[AUTHORIZATION]
        if authorization is not None and not exchange.spent_authorization:
            fields += (b"Authorization: ", authorization, CRLF)
        return fields


def path_at(backend: Backend, target: Target) -> str:
    """The path and query below the backend's address."""
    return (target.rest or backend.predict_path) + target.query
