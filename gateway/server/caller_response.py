"""Writes responses to a caller. A whole response goes out at once, a backend's as it arrives."""

import time
from collections.abc import Awaitable
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway.core.added_response_headers import gateway_field_lines
from gateway.core.chunked import LAST_CHUNK, encode_chunk, encode_last_chunk
from gateway.core.direct_response import Response, field_lines
from gateway.core.errors import HeaderList
from gateway.core.exchange import Exchange
from gateway.core.inline_wakeup_future import COMPLETED, InlineWakeupFuture

if TYPE_CHECKING:
    from gateway.server.fast_path_interfaces import CallerTransport
    from gateway.upstream.base import RelayingConnection
    from gateway.upstream.response_head import ResponseHead

_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_status_lines: dict[tuple[bool, int, bytes], bytes] = {}
_KNOWN_LIMIT: Final = 1024
_KNOWN_REASON_BYTES: Final = 64

# How the body is framed.
_NONE: Final = 0  # there is none, whatever the head says
_LENGTH: Final = 1
_CHUNKS: Final = 2
_CLOSE: Final = 3  # it ends with the connection


class CallerResponse:
    """The response to one request of a caller.

    It is written to the caller's connection. At its end `finished` is true, and the connection knows whether it stays
    open.
    """

    __slots__ = (
        "_connection",
        "_framing",
        "_head_only",
        "_version_11",
        "cut_off",
        "exchange",
        "finished",
        "started",
    )

    exchange: Exchange

    def __init__(self, connection: "CallerTransport", head_only: bool, version_11: bool) -> None:  # noqa: FBT001
        self._connection = connection
        self._head_only = head_only
        self._version_11 = version_11
        self._framing = _NONE
        self.started = False
        self.finished = False
        self.cut_off = False

    # -- an answer of the gateway's own

    def send(self, answer: Response) -> Awaitable[None]:
        status, body = answer.status, answer.body
        begin = _remembered_begin(self._version_11, status, answer.headers)
        head = self._head(begin, status, len(body), self._head_only)
        if self._head_only:
            body = b""
        self._connection.write_two(head, body)
        self.exchange.bytes_out = len(body)
        self.finished = True
        return COMPLETED

    async def start(
        self, status: int, reason: str, fields: list[tuple[bytes, bytes]], length: int | None
    ) -> None:
        self._connection.write(
            self._head(
                _status_line(self._version_11, status, reason.encode("latin-1")) + field_lines(fields),
                status,
                -1 if length is None else length,
                self._head_only or status in {204, 304},
                length is None,
                any(name.lower() == b"date" for name, _ in fields),
            )
        )

    async def write(self, piece: bytes) -> None:
        self.relay_piece(piece)
        connection = self._connection
        if connection.writing_paused:
            completion = connection.drained = InlineWakeupFuture()
            await completion

    async def finish(self) -> None:
        self.relay_end(b"")

    def abort(self) -> None:
        self.cut_off = True
        self.finished = True
        self._connection.abort()

    # -- a backend's answer

    def relay(
        self,
        head: "ResponseHead",
        body: bytes,
        *,
        complete: bool,
        source: "RelayingConnection",
        trailers: bytes = b"",
    ) -> None:
        status = head.status
        if status == 200 and head.reason == b"OK" and self._version_11:
            status_line = _OK
        else:
            status_line = _status_line(self._version_11, status, head.reason)
        raw = self._head(
            status_line + head.fields,
            status,
            head.length,
            self._head_only or status in {204, 304},
            head.chunked,
            head.dated,
        )
        if body:
            self.exchange.bytes_out = len(body)
            if self._framing == _CHUNKS:
                body = encode_chunk(body)
        if complete:
            if self._framing == _CHUNKS:
                body += encode_last_chunk(trailers)
            self.finished = True
        else:
            connection = self._connection
            connection.source = source
            if connection.writing_paused:
                source.pause()
        self._connection.write_two(raw, body)

    def relay_piece(self, piece: bytes) -> None:
        if not piece or self._framing == _NONE:
            return
        self.exchange.bytes_out += len(piece)
        self._connection.write(encode_chunk(piece) if self._framing == _CHUNKS else piece)

    def relay_end(self, trailers: bytes) -> None:
        self._connection.source = None
        if self._framing == _CHUNKS:
            self._connection.write(encode_last_chunk(trailers) if trailers else LAST_CHUNK)
        self.finished = True

    def relay_interim(self, head: "ResponseHead") -> None:
        if self._version_11:
            self._connection.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, head.fields))

    def relay_tunnel(self, head: "ResponseHead", first: bytes, source: "RelayingConnection") -> None:
        exchange = self.exchange
        exchange.status = 101
        self.started = True
        self._framing = _CLOSE
        own = gateway_field_lines(exchange, time.monotonic()).encode("latin-1")
        self._connection.open_tunnel(source)
        self._connection.write(
            b"HTTP/1.1 101 Switching Protocols\r\n%b%bConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%b"
            % (head.fields, own, first)
        )

    # -- both

    def _head(
        self,
        begin: bytes,
        status: int,
        length: int,
        bodiless: bool,  # noqa: FBT001
        chunked: bool = False,  # noqa: FBT001, FBT002
        dated: bool = False,  # noqa: FBT001, FBT002
    ) -> bytes:
        """The head: `begin`, which is its status line and fields, and what the gateway adds, with the empty line.

        Decides how the body is framed and whether the connection lives on.
        """
        connection, exchange = self._connection, self.exchange
        now = time.monotonic()
        exchange.status = status
        self.started = True
        framing = ""
        date = "" if dated else connection.date_line()
        if length >= 0 and not chunked:
            self._framing = _NONE if bodiless else _LENGTH
            if status != 204:
                framing = f"Content-Length: {length}\r\n"
        elif bodiless:
            self._framing = _NONE
        elif self._version_11:
            self._framing = _CHUNKS
            framing = "Transfer-Encoding: chunked\r\n"
        else:
            self._framing = _CLOSE
            connection.last = True
        if connection.closes_after_response():
            framing += "Connection: close\r\n"
        elif not self._version_11:
            framing += "Connection: keep-alive\r\n"
        return (
            begin
            + exchange.added_lines
            + f"{date}{gateway_field_lines(exchange, now)}{framing}\r\n".encode("latin-1")
        )


def _status_line(version_11: bool, status: int, reason: bytes) -> bytes:  # noqa: FBT001
    known = _status_lines.get((version_11, status, reason))
    if known is None:
        known = b"HTTP/1.%d %d %b\r\n" % (version_11, status, reason or _REASONS.get(status, b""))
        if len(_status_lines) < _KNOWN_LIMIT and len(reason) <= _KNOWN_REASON_BYTES:
            _status_lines[version_11, status, reason] = known
    return known


@lru_cache(maxsize=1024)
def _remembered_begin(version_11: bool, status: int, headers: HeaderList) -> bytes:  # noqa: FBT001
    """The beginning of one of the gateway's own answers, which are few."""
    return _status_line(version_11, status, b"") + field_lines(headers)
