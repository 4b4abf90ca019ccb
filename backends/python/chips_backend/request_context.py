"""The context of one request in the backend: its head, its body, its deadline, its log line."""

import asyncio
import re
import time
from random import Random
from types import SimpleNamespace
from typing import Any, Final, Protocol

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy, istr

from chips_backend.logs import AnsweredLine, HttpRequest, Log, Timing
from chips_backend.problem_details import Problem, bad_request
from chips_backend.trace_context import Trace, read_trace

JSON: Final = "application/json"
JSON_FIELDS: Final = f"Content-Type: {JSON}\r\n"
# A name that is an istr is looked up without being lowered first.
_CALLER: Final = istr("X-Chips-Caller")
_CONTENT_ENCODING: Final = istr("Content-Encoding")
_CONTENT_LENGTH: Final = istr("Content-Length")
_CONTENT_TYPE: Final = istr("Content-Type")
_EXPECT: Final = istr("Expect")
_REQUEST_ID: Final = istr("X-Request-Id")
_REQUEST_TIMEOUT: Final = istr("X-Request-Timeout")
_random: Final = Random()  # of its own: a model may seed the module's  # noqa: S311
_ID: Final = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
NO_REQUEST: Final = SimpleNamespace(
    method="UNKNOWN",
    path="/",
    version=HttpVersion10,
    headers=CIMultiDictProxy(CIMultiDict()),
    should_close=True,
    upgrade=False,
    chunked=False,
)


class Continuing(Protocol):
    """Where a request came from."""

    def send_continue(self) -> None:
        """Tell a caller who waits for it that the body may come."""


class RequestContext:
    """One request on its way: what it asked, how long its parts took, what the log will say.

    `message` is its head as aiohttp's parser gives it, `payload` its body.
    """

    __slots__ = (
        "_connection",
        "_message",
        "arrived",
        "bytes_in",
        "caller",
        "fields",
        "head",
        "large",
        "method",
        "parse_ms",
        "path",
        "payload",
        "predict_ms",
        "queue_ms",
        "render_ms",
        "request_id",
        "shared",
        "trace",
    )

    def __init__(
        self,
        message: Any = NO_REQUEST,
        payload: StreamReader = EMPTY_PAYLOAD,
        connection: Continuing | None = None,
    ) -> None:
        self.arrived = time.monotonic()
        self._message = message
        self._connection = connection
        self.payload = payload
        self.method: str = message.method
        path: str = message.path.partition("?")[0]
        # A target may be an absolute URL as well (RFC 9112, section 3.2.2).
        self.path: str = path if path.startswith("/") else message.url.raw_path
        self.head = head = message.headers
        given = head.get(_REQUEST_ID, "")
        self.request_id: str = given if _ID.fullmatch(given) else f"{_random.getrandbits(128):032x}"
        self.trace: Trace | None = read_trace(head)
        caller = head.get(_CALLER, "")[:128]
        self.caller: str = caller if caller.isascii() else caller.encode("utf-8", "replace").decode()
        self.queue_ms = self.parse_ms = self.predict_ms = self.render_ms = 0.0
        self.shared = 1  # how many requests were predicted in its call
        self.bytes_in = 0
        self.large = False  # its body was parsed off the event loop
        self.fields = JSON_FIELDS  # of a good answer, with their ends

    @property
    def open_inference(self) -> bool:
        return self.path.startswith("/v2/")

    @property
    def version(self) -> Any:
        return self._message.version

    @property
    def closes(self) -> bool:
        """Whether the connection is to be closed after the response.

        Not only where the caller wants it: behind a request that asks for an upgrade the parser reads no further request, and
        HTTP/1.0 has no chunks, so that its ends may be seen elsewhere by others (RFC 9112, section 6.1). A length of 2⁶⁴ - 1 bytes is
        no body for the parser, which reads over whatever comes.
        """
        message = self._message
        return bool(
            message.should_close
            or message.upgrade
            or (message.chunked and message.version == HttpVersion10)
            or (self.payload is EMPTY_PAYLOAD and int(self.head.get(_CONTENT_LENGTH, "0")))
        )

    @property
    def content_type(self) -> str:
        """In lower case, without parameters; JSON where the request has none."""
        given: str = self.head.get(_CONTENT_TYPE, JSON)
        return given if given == JSON else given.partition(";")[0].strip().lower()

    @property
    def content_encoding(self) -> str:
        """In lower case; several with commas in between."""
        return ", ".join(self.head.getall(_CONTENT_ENCODING, ("identity",))).strip().lower()

    async def read_body(self, limit: int) -> bytes:
        """Read the whole body.

        Raises a Problem: 413 for one of more than `limit` bytes, 504 where the deadline comes first, 400 where its rest is no HTTP.
        """
        payload = self.payload
        if int(self.head.get(_CONTENT_LENGTH, "0")) > limit:
            raise _too_large(limit)
        if _EXPECT in self.head:
            self._send_continue()
        try:
            if payload.is_eof():
                body = payload.read_nowait()
                self.bytes_in = len(body)
                if len(body) > limit:
                    raise _too_large(limit)
                return body
            return b"".join(await self._read_pieces(limit))
        except HttpProcessingError as error:
            raise bad_request(error) from None

    async def _read_pieces(self, limit: int) -> list[bytes]:
        pieces = []
        deadline = self.deadline()
        alarm = (
            asyncio.get_running_loop().call_at(deadline, self.payload.set_exception, _too_late())
            if deadline is not None
            else None
        )
        try:
            async for piece in self.payload.iter_any():
                self.bytes_in += len(piece)
                if self.bytes_in > limit:
                    raise _too_large(limit)
                pieces.append(piece)
        finally:
            if alarm is not None:
                alarm.cancel()
        return pieces

    def _send_continue(self) -> None:
        expects = self.head[_EXPECT].lower() == "100-continue" and self.version >= HttpVersion11
        if expects and self._connection is not None:
            self._connection.send_continue()

    def deadline(self) -> float | None:
        """When the caller stops waiting, on the loop's clock, by X-Request-Timeout in milliseconds."""
        allowed = self.head.get(_REQUEST_TIMEOUT, "")
        if not allowed.isascii() or not allowed.isdigit():
            return None
        spent_s = time.monotonic() - self.arrived
        left_s = int(allowed[:12]) / 1000 - spent_s
        if left_s <= 0:
            raise _too_late()
        return asyncio.get_running_loop().time() + left_s

    def timing(self) -> str:
        """The parts of the time as the header Server-Timing has them, in milliseconds."""
        shared = f";shared={self.shared}" if self.shared > 1 else ""
        return (
            f"queue;dur={self.queue_ms:.1f}, parse;dur={self.parse_ms:.1f}, "
            f"predict;dur={self.predict_ms:.1f}{shared}, render;dur={self.render_ms:.1f}"
        )

    def log(
        self,
        log: Log,
        status: int,
        size: int,
        code: str,
        cause: BaseException | None,
        stack: str = "",
    ) -> None:
        """Write the log line, and a second one with the cause of a failure or the reason of a refusal."""
        severity = "ERROR" if status >= 500 else "WARNING" if status >= 400 else "INFO"
        if code == "not-ready":
            severity = "INFO"  # a platform asks this often while the model loads
        path = self.path
        log.answered(
            AnsweredLine(
                severity,
                f"{self.method} {path[:200]} {status}",
                log.time(),
                HttpRequest(
                    self.method,
                    path[:512],
                    status,
                    str(self.bytes_in),
                    str(size),
                    f"{time.monotonic() - self.arrived:.6f}s",
                ),
                self.request_id,
                Timing(
                    int(self.queue_ms * 1000 + 0.5) / 1000,
                    int(self.parse_ms * 1000 + 0.5) / 1000,
                    int(self.predict_ms * 1000 + 0.5) / 1000,
                    int(self.render_ms * 1000 + 0.5) / 1000,
                ),
                self.caller,
                code,
            ),
            self.trace,
        )
        if status < 500 and stack:  # the caller is to blame: what the model said, without the way to it
            reason = {"request_id": self.request_id, "reason": stack.strip().rpartition("\n")[2]}
            log.request(severity, f"request {self.request_id} was refused by the model", self.trace, reason)
        elif status >= 500 and (cause is not None or stack):
            failure = {"request_id": self.request_id, **({"stack": stack} if stack else {})}
            log.request(severity, f"request {self.request_id} failed", self.trace, failure, cause=cause)


def _too_late() -> Problem:
    return Problem(504, "deadline-exceeded", "the time allowed was over before the prediction could begin")


def _too_large(limit: int) -> Problem:
    return Problem(413, "payload-too-large", f"the body is larger than {limit} bytes")
