"""The two people in a flow test: a caller and a backend, both on raw sockets, so that every byte is in the test's hands."""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Fields = list[tuple[str, str]]


@dataclass
class Message:
    """A request or an answer as it was on the wire."""

    first: str
    fields: Fields
    body: bytes
    complete: bool = True  # False: the connection ended inside it
    trailers: Fields = field(default_factory=list)

    @property
    def method(self) -> str:
        return self.first.split(" ")[0]

    @property
    def target(self) -> str:
        return self.first.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.first.split(" ")[1])

    def all(self, name: str) -> list[str]:
        return [value for n, value in self.fields if n.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


async def read_head(reader: asyncio.StreamReader) -> tuple[str, Fields]:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return first, fields


async def read_message(reader: asyncio.StreamReader, *, request: bool, head_only: bool = False) -> Message:
    first, fields = await read_head(reader)
    message = Message(first, fields, b"")
    if head_only or (not request and (100 <= message.status < 200 or message.status in {204, 304})):
        return message
    try:
        if "chunked" in ",".join(message.all("Transfer-Encoding")).lower():
            await _read_chunks(reader, message)
        elif message.get("Content-Length") is not None:
            message.body = await reader.readexactly(int(message.get("Content-Length") or 0))
        elif not request:
            message.body = await reader.read()
    except asyncio.IncompleteReadError as error:
        message.body += error.partial
        message.complete = False
    except ConnectionError:
        message.complete = False
    return message


async def _read_chunks(reader: asyncio.StreamReader, message: Message) -> None:
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if not size:
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                name, _, value = line.decode("latin-1").partition(":")
                message.trailers.append((name, value.strip()))
            return
        chunk = await reader.readexactly(size + 2)
        assert chunk.endswith(b"\r\n")
        message.body += chunk[:-2]


class Peer:
    """One connection to the scripted backend, inside its script."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(
        self,
        status: int = 200,
        body: bytes = b"{}",
        fields: Sequence[tuple[str, str]] = (),
        *,
        head_only: bool = False,
    ) -> None:
        lines = [
            f"HTTP/1.1 {status} Answer",
            f"Content-Length: {len(body)}",
            *(f"{n}: {v}" for n, v in fields),
        ]
        await self.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head_only else body))

    async def write(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Message, Peer], Awaitable[None]]


async def echo(request: Message, peer: Peer) -> None:
    """Answer with what was seen."""
    seen = {"method": request.method, "target": request.target, "fields": request.fields}
    await peer.answer(200, json.dumps(seen).encode(), [("Content-Type", "application/json")])


def echo_after(release: asyncio.Event) -> Script:
    """As `echo`, once `release` is set."""

    async def answer(request: Message, peer: Peer) -> None:
        await release.wait()
        await echo(request, peer)

    return answer


def _hold(port: int) -> socket.socket:
    """Bound to `port` and never listening: while its server is away, the system gives the port to nobody else."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind(("127.0.0.1", port))
    except OSError:
        place.close()
        raise
    return place


class ScriptedBackend:
    """A backend that does what the test says. `seen` lists every request that reached it."""

    def __init__(self, script: Script = echo, *, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self._tls = tls
        self.seen: list[Message] = []
        self.connections = 0
        self.lost = asyncio.Event()  # a connection ended while its script was waiting for it
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._place: socket.socket | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        """Listen on `port`; after `go_away` on the one that it had."""
        if self._place is None:
            self._place = _hold(port)
        self.port = self._place.getsockname()[1]
        try:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        except OSError:
            await self.stop()
            raise

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self.go_away()
        if self._place is not None:
            self._place.close()
            self._place = None

    async def go_away(self) -> None:
        """Nobody listens on `port` any more, until the next `start`."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        peer = Peer(reader, writer)
        try:
            while True:
                request = await read_message(reader, request=True)
                self.seen.append(request)
                await self.script(request, peer)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


class Caller:
    """One connection to the gateway."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self) -> "Caller":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Message:
        return await read_message(self.reader, request=False, head_only=head_only)

    async def ended(self) -> bytes:
        """Wait for the end of the connection; what still came before it."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def leave(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()


def request(
    method: str,
    target: str,
    *,
    body: bytes | None = None,
    fields: Sequence[tuple[str, str]] = (),
    host: str = "chips",
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
