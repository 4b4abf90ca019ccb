"""Forward the request to its backend. The response is streamed back to the caller."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gateway.core.exchange import Exchange
from gateway.core.header_classification import AUTHORIZATION, CRLF
from gateway.core.model import Backend
from gateway.core.request_target import RequestTarget
from gateway.upstream.base import Upstream, UpstreamRequest

if TYPE_CHECKING:
    from gateway.auth.caller_token_signer import CallerTokenSigner


class Forward:
    """Forward the request to its backend through the upstream. With a `signer`, it carries the caller's signed identity."""

    def __init__(self, upstream: Upstream, signer: "CallerTokenSigner | None" = None) -> None:
        self._upstream = upstream
        self._signer = signer
        self._observe: Callable[[Exchange, UpstreamRequest], None] | None = None

    def set_observer(self, observe: Callable[[Exchange, UpstreamRequest], None] | None) -> None:
        """Set the function that is called with each request before it is sent. None: no function."""
        self._observe = observe

    def __call__(self, exchange: Exchange) -> Awaitable[None]:
        backend, target = exchange.backend, exchange.target
        request = UpstreamRequest(
            exchange.method, backend.url, path_below_backend_url(backend, target), self._fields(exchange)
        )
        if self._observe is not None:
            self._observe(exchange, request)
        return self._upstream.send(exchange, request)

    def _fields(self, exchange: Exchange) -> list[bytes]:
        """The caller's own field lines, those of its way here, and ours in one piece."""
        head = exchange.head
        left_ms = int((exchange.deadline - exchange.permitted) * 1000)
        fields = [
            head.outbound,
            head.way,
            (
                f"X-Request-Id: {exchange.request_id}\r\n"
                f"X-Request-Timeout: {left_ms if left_ms > 0 else 1}\r\n"
                f"X-Chips-Caller: {exchange.principal.id}\r\n"
            ).encode("latin-1"),
        ]
        authorization = head.read[AUTHORIZATION]
        if (
            authorization is not None
            and not exchange.consumed_authorization
            and AUTHORIZATION not in head.ends_here
        ):
            fields += (b"Authorization: ", authorization, CRLF)
        if self._signer is not None:
            token = self._signer.token(exchange.principal.id, exchange.model.name)
            fields += (b"X-Chips-Caller-Token: ", token, CRLF)
        return fields


def path_below_backend_url(backend: Backend, target: RequestTarget) -> str:
    """The path and query of a request at its backend, below the backend's base URL."""
    return (target.rest or backend.predict_path) + target.query
