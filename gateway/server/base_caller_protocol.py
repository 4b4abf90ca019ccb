"""The part of a caller's connection below HTTP: writes, flow control, and the lingering close."""

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from gateway.core.inline_wakeup_future import InlineWakeupFuture
from gateway.server.fast_path_interfaces import BODY, PIPELINE
from gateway.server.lingering_close import LINGER_S, LingeringClose

if TYPE_CHECKING:
    from gateway.server.fast_path_interfaces import ServerState
    from gateway.upstream.base import RelayingConnection

NEVER: Final = float("inf")

_JOINED_BYTES: Final = 4096  # beyond this a copy costs more than a second buffer
_GOODBYE_S: Final = 0.5  # at a stop


class BaseCallerProtocol(asyncio.Protocol):
    """The part of a caller's connection below HTTP. It writes, pauses and resumes both directions, and closes.

    `CallerConnection` inherits it and reads the requests. The server calls `expire` at `due` (monotonic seconds).
    """

    __slots__ = (
        "_busy",
        "_linger",
        "_pauses",
        "_received",
        "_scheme",
        "_server",
        "body_timeout_s",
        "drained",
        "due",
        "peer",
        "source",
        "stalled_at",
        "transport",
        "writing_paused",
    )

    def __init__(self, server: "ServerState") -> None:
        self._server = server
        self.body_timeout_s = server.body_timeout_s
        self.peer = ""
        self._scheme = "http"
        self.transport: asyncio.Transport | None = None
        self._busy = False  # a request is under way
        self._received = b""  # what belongs to no request yet
        self._pauses = 0  # why nothing is read just now
        self._linger: LingeringClose | None = (
            None  # the last answer has been given, and the caller has yet to close
        )
        self.source: RelayingConnection | None = None  # of the answer that is being relayed
        self.writing_paused = False
        self.drained: InlineWakeupFuture | None = None
        self.due = NEVER
        self.stalled_at = NEVER  # since when the caller has not read what was written

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else ""
        if transport.get_extra_info("sslcontext") is not None:
            self._scheme = "https"
        self.due = time.monotonic() + self._server.head_timeout_s
        self._server.connection_made(self, self.transport)

    # -- writing

    def write(self, raw: bytes) -> None:
        if self.transport is not None:
            self.transport.write(raw)

    def write_two(self, head: bytes, body: bytes) -> None:
        transport = self.transport
        if transport is not None:
            if len(body) <= _JOINED_BYTES:
                transport.write(head + body)
            else:
                transport.writelines((head, body))

    def date_line(self) -> str:
        return self._server.date_line()

    def send_continue(self) -> None:
        """Send `100 Continue` to the caller. The caller waits for it before it sends the body (RFC 9110 section 10.1.1)."""
        self.due = time.monotonic() + self.body_timeout_s
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def pause_writing(self) -> None:
        self.writing_paused = True
        self.stalled_at = time.monotonic()
        if self.source is not None:
            self.source.pause()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self.stalled_at = NEVER
        if self.source is not None:
            self.source.resume()
        if self.drained is not None:
            drained, self.drained = self.drained, None
            drained.complete()

    # -- reading

    def pause_reading(self, why: int = BODY) -> None:
        if not self._pauses and self.transport is not None:
            self.transport.pause_reading()
        self._pauses |= why

    def resume_reading(self, why: int = BODY) -> None:
        """Resume reading if it was paused for `why` alone."""
        before, self._pauses = self._pauses, self._pauses & ~why
        if before and not self._pauses and self.transport is not None:
            if self._busy:
                self.due = time.monotonic() + self.body_timeout_s
            self.transport.resume_reading()

    # -- the end

    def begin_lingering_close(self) -> None:
        """Begin a lingering close. It closes our side, and goes on reading so that the last response arrives."""
        transport = self.transport
        if transport is None:
            return
        now = time.monotonic()
        self._linger = LingeringClose(now)
        self._received = b""
        self.due = now + self.linger_s()
        self.resume_reading(BODY | PIPELINE)
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def linger_s(self) -> float:
        open_ = self._server.open
        return min(open_.linger_s, _GOODBYE_S) if open_.draining else LINGER_S

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
