"""The context of one request in the backend: its head, its body, its deadline, its log line."""

import asyncio
import re
import time
from typing import Any
from uuid import uuid4

from aiohttp import HttpVersion11, web

from chips_backend.logs import Log
from chips_backend.problem_details import Problem
from chips_backend.trace_context import Trace, read_trace

JSON = "application/json"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")


class RequestContext:
    """One request on its way: what it asked, how long its parts took, what the log will say."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.path = request.raw_path.partition("?")[0]
        given = request.headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        self.trace: Trace | None = read_trace(request.headers)
        self.caller = request.headers.get("X-Chips-Caller", "")[:128]
        self.timing = {"queue": 0.0, "parse": 0.0, "predict": 0.0, "render": 0.0}  # milliseconds
        self.shared = 1  # how many requests were predicted in its call
        self.arrived = time.monotonic()
        self.bytes_in = 0
        self.large = False  # its body was parsed off the event loop
        self.headers = {"Content-Type": JSON}  # of a good answer

    @property
    def open_inference(self) -> bool:
        return self.path.startswith("/v2/")

    async def read_body(self, limit: int) -> bytes:
        """Read the whole body. Raises a Problem (413) for one of more than `limit` bytes."""
        request = self.request
        too_large = Problem(413, "payload-too-large", f"the body is larger than {limit} bytes")
        if (request.content_length or 0) > limit:
            raise too_large
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        pieces = []
        async for piece in request.content.iter_any():
            self.bytes_in += len(piece)
            if self.bytes_in > limit:
                raise too_large
            pieces.append(piece)
        return b"".join(pieces)

    def deadline(self) -> float | None:
        """When the caller stops waiting, on the loop's clock, by X-Request-Timeout in milliseconds."""
        allowed = self.request.headers.get("X-Request-Timeout", "")
        if not allowed.isascii() or not allowed.isdigit():
            return None
        spent_s = time.monotonic() - self.arrived
        left_s = int(allowed[:12]) / 1000 - spent_s
        if left_s <= 0:
            raise Problem(
                504, "deadline-exceeded", "the time allowed was over before the prediction could begin"
            )
        return asyncio.get_running_loop().time() + left_s

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
        request = self.request
        fields: dict[str, Any] = {
            "httpRequest": {
                "requestMethod": request.method,
                "requestUrl": self.path[:512],
                "status": status,
                "requestSize": str(self.bytes_in),
                "responseSize": str(size),
                "latency": f"{time.monotonic() - self.arrived:.6f}s",
            },
            "request_id": self.request_id,
            "timing": {name: round(ms, 3) for name, ms in self.timing.items()},
        }
        if self.caller:
            fields["caller"] = self.caller
        if code:
            fields["code"] = code
        severity = "ERROR" if status >= 500 else "WARNING" if status >= 400 else "INFO"
        if code == "not-ready":
            severity = "INFO"  # a platform asks this often while the model loads
        log.request(
            severity=severity,
            message=f"{request.method} {self.path[:200]} {status}",
            trace=self.trace,
            **fields,
        )
        if status < 500 and stack:  # the caller is to blame: what the model said, without the way to it
            log.request(
                severity=severity,
                message=f"request {self.request_id} was refused by the model",
                trace=self.trace,
                request_id=self.request_id,
                reason=stack.strip().rpartition("\n")[2],
            )
        elif status >= 500 and (cause is not None or stack):
            log.request(
                severity=severity,
                message=f"request {self.request_id} failed",
                trace=self.trace,
                cause=cause,
                request_id=self.request_id,
                **({"stack": stack} if stack else {}),
            )
