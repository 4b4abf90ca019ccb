"""Hold back a backend's refusal of a request that may be retried.

It is held until it is known whether the request is retried. Such a refusal is a 429, or a 503 with Retry-After. The caller gets
it if the request is not retried.
"""

import re
from typing import TYPE_CHECKING, Final

from gateway.core.exchange import Exchange

if TYPE_CHECKING:
    from gateway.upstream.base import RelayingConnection, ResponseSink
    from gateway.upstream.response_head import ResponseHead

REFUSALS: Final = (429, 503)
LONGEST_WAIT_S: Final = 5.0  # a backend that names a longer time tells its caller, not the gateway
_UNSAID_S: Final = 1.0
_HELD_BYTES: Final = 64 * 1024
_RETRY_AFTER: Final = re.compile(rb"^retry-after:[ \t]*([0-9]{1,4})[ \t]*\r$", re.IGNORECASE | re.MULTILINE)


def refusal_retry_after_s(status: int, retry_after: bytes | None) -> float | None:
    """After how many seconds a refused request may be retried.

    None: the response is no retryable refusal. RFC 6585 section 4 (429) and RFC 9110 section 15.6.4 (503): the request was not
    handled. A 503 without Retry-After may come from a proxy that lost its connection to a backend which had begun.
    """
    if retry_after is None:
        return _UNSAID_S if status == 429 else None
    if not retry_after.isdigit():
        return None
    seconds = float(int(retry_after[:6]))
    return seconds if seconds <= LONGEST_WAIT_S else None


def hold_retryable_refusal(
    exchange: Exchange, head: "ResponseHead", response: "ResponseSink"
) -> "ResponseSink":
    """Hold back a response that is a retryable refusal. The request may then wait for another slot of the same backend.

    Returns its sink: a HeldRefusal if the request can be sent again. For any other response, returns `response`.
    """
    found = _RETRY_AFTER.search(head.fields)
    seconds = refusal_retry_after_s(head.status, found[1] if found else None)
    if seconds is None:
        return response
    exchange.refused_s = seconds
    body = exchange.body
    if not body.complete or body.piping_started:  # type: ignore[attr-defined]  # a PipedBody
        return response
    return HeldRefusal(exchange, response)


class HeldRefusal:
    """A `ResponseSink` that holds back a refusal.

    It does so until `deliver`. One with a long body is relayed to the caller as it arrives.
    """

    def __init__(self, exchange: Exchange, response: "ResponseSink") -> None:
        self._exchange = exchange
        self._response = response
        self._head: ResponseHead
        self._source: RelayingConnection
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._trailers = b""
        self._passes = False

    def relay(
        self,
        head: "ResponseHead",
        body: bytes,
        *,
        complete: bool,
        source: "RelayingConnection",
        trailers: bytes = b"",
    ) -> None:
        self._head, self._source = head, source
        self.relay_piece(body)
        if complete:
            self.relay_end(trailers)

    def relay_piece(self, piece: bytes) -> None:
        if self._passes:
            self._response.relay_piece(piece)
            return
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > _HELD_BYTES:
            self._passes = True
            self._response.relay(self._head, b"".join(self._pieces), complete=False, source=self._source)

    def relay_end(self, trailers: bytes) -> None:
        if self._passes:
            self._response.relay_end(trailers)
            return
        self._trailers = trailers
        self._exchange.refusal = self

    def relay_interim(self, head: "ResponseHead") -> None:
        self._response.relay_interim(head)

    def relay_tunnel(self, head: "ResponseHead", first: bytes, source: "RelayingConnection") -> None:
        self._response.relay_tunnel(head, first, source)

    async def deliver(self) -> None:
        """Deliver the refusal to the caller. The request will not be retried."""
        body = b"".join(self._pieces)
        self._response.relay(self._head, body, complete=True, source=self._source, trailers=self._trailers)
