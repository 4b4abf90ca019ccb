"""Streams the dashboard and the recorded requests to the console, as server-sent events.

The whole dashboard is sent every two seconds, and each recorded request soon after it is stored.
"""

import asyncio

import msgspec

from gateway.control.dashboard_data import Dashboard
from gateway.control.recorded_requests import request_row
from gateway.control.window_totals import DEFAULT_WINDOW
from gateway.core.errors import Overloaded
from gateway.core.escape_unprintable import printable_json
from gateway.core.exchange import Exchange
from gateway.telemetry.recorded_request_store import RequestAndTickReader

_BOARD_S = 2.0
_POLL_S = 0.5
_MAX_WATCHERS = 32
_FIELDS = [
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-store"),
    (b"X-Accel-Buffering", b"no"),  # proxies in front must not hold it back
]
_encode = msgspec.json.Encoder().encode


class EventStream:
    """Streams the dashboard and the recorded requests to the open consoles, as server-sent events."""

    def __init__(self, board: Dashboard, reader: RequestAndTickReader | None) -> None:
        self._board = board
        self._reader = reader
        self._watchers = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End all streams. So a drain does not wait for them."""
        self._stopping.set()

    async def __call__(self, exchange: Exchange, *, boards: bool, window: str = DEFAULT_WINDOW) -> None:
        """Stream until the watcher leaves. `boards` False: requests alone."""
        if self._watchers >= _MAX_WATCHERS:
            raise Overloaded(
                "Too many event streams are open on this gateway. Close one, or try again later.",
                retry_after_s=30,
            )
        self._watchers += 1
        try:
            await exchange.response.start(200, "OK", list(_FIELDS), None)
            await self._stream(exchange, boards=boards, window=window)
            await exchange.response.finish()
        finally:
            self._watchers -= 1

    async def _stream(self, exchange: Exchange, *, boards: bool, window: str) -> None:
        reader, write = self._reader, exchange.response.write
        number = await asyncio.to_thread(reader.last_number) if reader is not None else 0
        loop = asyncio.get_running_loop()
        board_due = loop.time()
        await write(b": watching\n\n")
        while not self._stopping.is_set():
            if loop.time() >= board_due:
                board_due = loop.time() + _BOARD_S
                # Without the board, a comment: it finds out that nobody listens any more.
                await write(
                    encode_event("board", await self._board.document(window))
                    if boards
                    else b": still there\n\n"
                )
            if reader is not None:
                kept = await asyncio.to_thread(reader.stored_after, number)
                if kept:
                    number = kept[-1].number
                    await write(encode_event("requests", [request_row(one) for one in kept]))
            try:
                await asyncio.wait_for(self._stopping.wait(), _POLL_S)
            except TimeoutError:
                continue


def encode_event(name: str, content: object) -> bytes:
    """Encode one server-sent event (WHATWG HTML, section 9.2)."""
    return (
        b"event: "
        + name.encode()
        + b"\ndata: "
        + printable_json(_encode(content).decode()).encode()
        + b"\n\n"
    )
