"""Record a copy of the answer that a caller gets.

It is compared with the candidate's answer. Recording does not delay the caller.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.core.direct_response import Response
from gateway.upstream.base import RelayingConnection, StreamingResponse, UpstreamRequest

if TYPE_CHECKING:
    from gateway.upstream.response_head import ResponseHead

_CODING: Final = b"content-encoding"
_JSON_LENGTH: Final = b"inference-header-content-length"
_MOST_DIGITS: Final = 12


class HeldBytesLimit:
    """A limit on the bytes that all recorded answers together hold in memory. They hold `now` of `limit`."""

    __slots__ = ("limit", "now")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0


class RecordedAnswer:
    """A recorded answer, whose whole body is dropped where it is larger than a limit.

    It has the status, two header fields, and the body. The body is also dropped where `held` has no room.
    """

    __slots__ = (
        "_held",
        "_limit",
        "_pieces",
        "coding",
        "complete",
        "crowded_out",
        "ended",
        "json_length",
        "on_end",
        "size",
        "status",
        "too_large",
    )

    def __init__(self, drop_above_bytes: int, held: HeldBytesLimit | None = None) -> None:
        self._limit = drop_above_bytes
        self._held = held or HeldBytesLimit(drop_above_bytes)
        self._pieces: list[bytes] = []
        self.size = 0
        self.status = 0
        self.coding = ""
        self.json_length: int | None = None
        self.complete = False
        self.ended = False
        self.too_large = False
        self.crowded_out = False  # it is not too large itself
        self.on_end: Callable[[], object] | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    def begin(self, status: int, lines: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        for name, value in lines:
            lower = name.lower()
            if lower == _CODING:
                self.coding = value.strip().decode("latin-1")
            elif lower == _JSON_LENGTH and value.strip().isdigit() and len(value) <= _MOST_DIGITS:
                self.json_length = int(value)

    def begin_with(self, head: "ResponseHead") -> None:
        lines = (line.partition(b":") for line in head.fields.split(b"\r\n"))
        self.begin(head.status, [(name, value) for name, _, value in lines])

    def take(self, piece: bytes) -> None:
        if self.too_large or self.crowded_out or not piece:
            return
        self.size += len(piece)
        self._held.now += len(piece)
        self._pieces.append(piece)
        self.too_large = self.size > self._limit
        self.crowded_out = not self.too_large and self._held.now > self._held.limit
        if self.too_large or self.crowded_out:
            self.release()

    def release(self) -> None:
        """Release the recorded body from memory. Its bytes go back to the common limit."""
        self._held.now -= sum(map(len, self._pieces))
        self._pieces.clear()

    def end(self) -> None:
        self.ended = True
        self.complete = not (self.too_large or self.crowded_out)
        if self.on_end is not None:
            self.on_end()


class RecordingResponse:
    """A response to the caller that also records the backend's answer.

    It passes everything on to the caller. The record is in `recording`. It stands in for the caller's `StreamingResponse`.
    """

    def __init__(
        self, response: StreamingResponse, recording: RecordedAnswer, request: UpstreamRequest
    ) -> None:
        self._response = response
        self.recording = recording
        self.request = request  # as the stable version gets it

    @property
    def started(self) -> bool:
        return self._response.started

    async def send(self, answer: Response) -> None:
        await self._response.send(answer)  # the gateway's own answer: nothing to compare

    def abort(self) -> None:
        self._response.abort()

    # -- as the plain path writes it

    async def start(
        self, status: int, reason: str, fields: list[tuple[bytes, bytes]], length: int | None
    ) -> None:
        self.recording.begin(status, fields)
        await self._response.start(status, reason, fields, length)

    async def write(self, chunk: bytes) -> None:
        self.recording.take(chunk)
        await self._response.write(chunk)

    async def finish(self) -> None:
        await self._response.finish()
        self.recording.end()

    # -- as the fast path relays it

    def relay(
        self,
        head: "ResponseHead",
        body: bytes,
        *,
        complete: bool,
        source: RelayingConnection,
        trailers: bytes = b"",
    ) -> None:
        self._response.relay(head, body, complete=complete, source=source, trailers=trailers)
        self.recording.begin_with(head)
        self.recording.take(body)
        if complete:
            self.recording.end()

    def relay_piece(self, piece: bytes) -> None:
        self._response.relay_piece(piece)
        self.recording.take(piece)

    def relay_end(self, trailers: bytes) -> None:
        self._response.relay_end(trailers)
        self.recording.end()

    def relay_interim(self, head: "ResponseHead") -> None:
        self._response.relay_interim(head)

    def relay_tunnel(self, head: "ResponseHead", first: bytes, source: RelayingConnection) -> None:
        self._response.relay_tunnel(head, first, source)


class RecordOnlyResponse:
    """A response that only records a backend's answer. No caller waits for it."""

    started = False

    def __init__(self, recording: RecordedAnswer) -> None:
        self.recording = recording

    def abort(self) -> None: ...

    def relay(
        self,
        head: "ResponseHead",
        body: bytes,
        *,
        complete: bool,
        source: RelayingConnection,  # noqa: ARG002  (it is read as fast as it comes)
        trailers: bytes = b"",
    ) -> None:
        self.recording.begin_with(head)
        self.relay_piece(body)
        if complete:
            self.relay_end(trailers)

    def relay_piece(self, piece: bytes) -> None:
        self.recording.take(piece)

    def relay_end(self, trailers: bytes) -> None:  # noqa: ARG002
        self.recording.end()

    def relay_interim(self, head: "ResponseHead") -> None: ...

    def relay_tunnel(self, head: "ResponseHead", first: bytes, source: RelayingConnection) -> None: ...


class ResendableBody:
    """A request body in memory that can be sent again. It stands in for a `PipedBody`."""

    complete = True
    error = None
    piping_started = False

    def __init__(self, body: bytes) -> None:
        self._body = body

    @property
    def length(self) -> int:
        return len(self._body)

    def buffered_body(self) -> bytes:
        return self._body
