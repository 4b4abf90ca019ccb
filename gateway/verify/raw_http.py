"""A raw HTTP/1.1 client for the conformance checks. It sends exact bytes and reads the response without a library."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

Fields = tuple[tuple[str, str], ...]

_SHOWN = 700
_HEAD_LIMIT = 1 << 20
_REQUEST_LIMIT_SHOWN = 400


class NoCompleteResponse(Exception):
    """The backend sent no complete response. The text says what came instead."""


class EmptyResponse(NoCompleteResponse):
    """The backend closed the connection without sending a byte."""


class RawRequest(NamedTuple):
    """A raw HTTP request that a check sends. `raw`, if given, is sent as it is instead of everything else."""

    method: str
    path: str
    fields: Fields = ()
    body: bytes | None = None
    raw: bytes | None = None
    chunked: bool = False

    def __str__(self) -> str:
        if self.raw is not None:
            return _cut(self.raw, _REQUEST_LIMIT_SHOWN)
        head = "\n".join([f"{self.method} {self.path}", *(f"{n}: {v[:200]}" for n, v in self.fields)])
        return head if self.body is None else f"{head}\n\n{_cut(self.body, _REQUEST_LIMIT_SHOWN)}"


class RawResponse(NamedTuple):
    """A raw HTTP response, as it was received. `seconds` is how long it took."""

    status: int
    fields: Fields
    body: bytes
    seconds: float

    def __str__(self) -> str:
        head = "\n".join([f"{self.status}", *(f"{name}: {value}" for name, value in self.fields)])
        return f"{head}\n\n{_cut(self.body, _SHOWN)}" if self.body else head

    def get_all(self, name: str) -> list[str]:
        return [value for n, value in self.fields if n.lower() == name.lower()]

    def get(self, name: str) -> str:
        """The value of a header field. Several values are joined by commas; empty where the field is missing."""
        return ", ".join(self.get_all(name))

    def json(self) -> object:
        """Parse the body as JSON. It is strict: NaN and Infinity are errors. Raises ValueError."""
        return msgspec.json.decode(self.body)


class RawConnection:
    """An open connection to the backend. A check sends requests on it."""

    def __init__(
        self, client: "RawClient", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._wire = client
        self._reader = reader
        self._writer = writer
        self._began = False  # the head of the present answer was there

    async def request(self, request: RawRequest) -> RawResponse:
        began = time.monotonic()
        self._began = False
        self.send_nowait(request)
        try:
            async with asyncio.timeout(self._wire.timeout_s):
                status, fields, body = await self._answer(head_only=request.method == "HEAD")
        except TimeoutError:
            raise NoCompleteResponse(f"no whole answer within {self._wire.timeout_s:g} seconds") from None
        except asyncio.IncompleteReadError as error:
            if not error.partial and not self._began:
                raise EmptyResponse("the connection ended without an answer") from None
            raise NoCompleteResponse(f"the connection ended after {_cut(error.partial, 100)!r}") from None
        except (OSError, asyncio.LimitOverrunError) as error:
            kind = NoCompleteResponse if self._began else EmptyResponse
            raise kind(f"the connection broke: {error}") from None
        except ValueError as error:
            raise NoCompleteResponse(f"Content-Length or a chunk's size is no number: {error}") from None
        return RawResponse(status, fields, body, time.monotonic() - began)

    def send_nowait(self, request: RawRequest) -> None:
        """Send a request, without waiting until all is sent: an early response counts."""
        self._writer.write(self._wire.render(request))

    async def _answer(self, *, head_only: bool) -> tuple[int, Fields, bytes]:
        while True:
            head = await self._reader.readuntil(b"\r\n\r\n")
            self._began = True
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            version, _, rest = first.partition(" ")
            if version not in {"HTTP/1.1", "HTTP/1.0"} or not rest[:3].isdigit():
                raise NoCompleteResponse(f"what came is not HTTP/1.1: {first[:100]!r}")
            status = int(rest[:3])
            fields = tuple((n, v.strip()) for n, _, v in (line.partition(":") for line in lines))
            if status >= 200 or status == 101:
                break
        if head_only or status in {101, 204, 304}:
            return status, fields, b""
        return status, fields, await self._body({name.lower(): value for name, value in fields})

    async def _body(self, fields: dict[str, str]) -> bytes:
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            while await self._reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return body
        if "content-length" in fields:
            return await self._reader.readexactly(int(fields["content-length"]))
        return await self._reader.read()

    def abort(self) -> None:
        """Abort the connection. A caller who gives up does so."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()


class RawClient:
    """A raw HTTP/1.1 client of one backend. It sends bytes that no HTTP library would.

    `fields` are added to every request, such as a platform's Authorization.
    """

    def __init__(self, url: str, *, fields: Fields = (), timeout_s: float = 30.0) -> None:
        parts = urlsplit(url)
        self.timeout_s = timeout_s
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._authority = parts.netloc
        self._base = parts.path.rstrip("/")
        self._fields = fields

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[RawConnection]:
        context = ssl.create_default_context() if self._secure else None
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, ssl=context, limit=_HEAD_LIMIT
                )
        except (OSError, TimeoutError) as error:
            raise NoCompleteResponse(f"no connection to {self._authority}: {_reason(error)}") from None
        connection = RawConnection(self, reader, writer)
        try:
            yield connection
        finally:
            await connection.close()

    async def request(self, request: RawRequest) -> RawResponse:
        """Send a request on a new connection. Raises NoCompleteResponse."""
        async with self.connection() as connection:
            return await connection.request(request)

    def render(self, request: RawRequest) -> bytes:
        if request.raw is not None:
            return request.raw.replace(b"{host}", self._authority.encode())
        fields = [("Host", self._authority), *self._fields, *request.fields]
        body = request.body or b""
        if request.chunked:
            fields.append(("Transfer-Encoding", "chunked"))
            body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in _pieces(body)) + b"0\r\n\r\n"
        elif request.body is not None:
            fields.append(("Content-Length", str(len(body))))
        lines = [
            f"{request.method} {self._base}{request.path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in fields),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _pieces(body: bytes, size: int = 65536) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def _cut(content: bytes, limit: int) -> str:
    text = content[:limit].decode("utf-8", "backslashreplace")
    return text if len(content) <= limit else f"{text}… ({len(content)} bytes)"


def _reason(error: OSError) -> str:
    """Why there is no connection, without the numbers and addresses that Python's own text repeats."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no address is known for the host"
    if isinstance(error, ssl.SSLError) or not error.errno:
        return str(error)
    return os.strerror(error.errno)
