# Long: the only file that knows aiohttp: each route, with its headers, limits and log line.
"""The web side, and the only file that knows aiohttp: routes, headers, limits, the log line of each request."""

import asyncio
import errno
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from chips_backend.binary import LENGTH_HEADER, MEDIA_TYPE, split_body
from chips_backend.body import LARGE_BYTES, MOST_AT_ONCE, Collector, parse, release
from chips_backend.config import Config
from chips_backend.fault import CannotTake, ModelFailed
from chips_backend.logs import Log
from chips_backend.model import Rows
from chips_backend.openapi import describe
from chips_backend.problem import Problem, invalid_instances
from chips_backend.rendering import LARGE_ROWS, render_large
from chips_backend.schema import Scoring, read_instances
from chips_backend.service import Loaded
from chips_backend.tensors import packed, read_tensors, tensor_outputs
from chips_backend.trace import Trace, read_trace
from chips_backend.typed import Instances, Tensors

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
_JSON = "application/json"


_HEADER_BYTES = 16 * 1024  # as the gateway takes them
_READ_BYTES = (
    256 * 1024
)  # of a body are taken ahead; aiohttp's 64 KiB stop and start the connection again and again
_encode = msgspec.json.Encoder().encode


class Call:
    """One request on its way: what it asked, how long its parts took, what the log will say."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.path = request.raw_path.partition("?")[0]
        given = request.headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        self.trace: Trace | None = read_trace(request.headers)
        self.caller = request.headers.get("X-Chips-Caller", "")[:128]
        self.timing = {"queue": 0.0, "parse": 0.0, "predict": 0.0, "render": 0.0}  # milliseconds
        self.arrived = time.monotonic()
        self.bytes_in = 0
        self.large = False  # its body was parsed off the event loop
        self.headers = {"Content-Type": _JSON}  # of a good answer

    @property
    def open_inference(self) -> bool:
        return self.path.startswith("/v2/")


Route = Callable[[Call], Awaitable[bytes]]


class App:
    """Answers requests. `loaded` is None until the model is ready."""

    def __init__(self, config: Config, log: Log) -> None:
        self._config = config
        self._log = log
        self.loaded: Loaded | None = None
        # One at a time: several would take the interpreter from the event loop for longer.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._collector = Collector()
        self._openapi = b""
        self._instances: Instances | None = None
        self._tensors: Tensors | None = None
        self._served = f"{config.model}@{config.version}" if config.model and config.version else ""
        self._routes = self._table(config.model, config.version)

    def become_ready(self, loaded: Loaded) -> None:
        manifest = loaded.manifest
        self._openapi = _encode(describe(manifest))
        self._instances = Instances(manifest.signature, loaded.facts.parameters)
        self._tensors = Tensors(manifest.signature, loaded.facts.parameters)
        self._served = loaded.served
        self._routes = self._table(manifest.model, manifest.version)
        self.loaded = loaded

    def _table(self, model: str | None, version: str | None) -> dict[str, dict[str, Route]]:
        config = self._config
        table: dict[str, dict[str, Route]] = {
            "/predict": {"POST": self._predict},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/openapi.json": {"GET": self._describe},
        }
        if model is not None and version is not None:
            for prefix in (f"/v2/models/{model}", f"/v2/models/{model}/versions/{version}"):
                table[prefix] = {"GET": self._metadata}
                table[f"{prefix}/ready"] = {"GET": self._ready}
                table[f"{prefix}/infer"] = {"POST": self._infer}
        if config.predict_route is not None:
            table.setdefault(config.predict_route, {})["POST"] = self._predict
        if config.health_route is not None:
            table.setdefault(config.health_route, {})["GET"] = self._ready
        return table

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(request)
        cause: BaseException | None = None
        headers = {}
        code = stack = ""
        try:
            try:
                status, body = 200, await self._answer(call)
                headers = call.headers
            finally:
                if call.large:
                    self._collector.resume()
        except Problem as problem:
            status, body, code, cause = (
                problem.status,
                self._render(problem, call),
                problem.code,
                problem.__cause__,
            )
            stack = problem.stack
            headers = {"Content-Type": "application/problem+json", **problem.headers}
        except asyncio.CancelledError:  # the caller has left, or time is up at the end
            self._log_call(call, 499, 0, "client-closed-request", None)
            raise
        except Exception as error:  # noqa: BLE001  (nothing a caller sends may end the process)
            failed = _prediction_failed()
            status, body, code, cause = 500, self._render(failed, call), failed.code, error
            headers = {"Content-Type": "application/problem+json"}
        response = web.Response(status=status, body=body, headers=headers)
        self._sign(response, call, code)
        if not request.content.is_eof():
            response.force_close()  # a body that nobody read would be taken for the next request
        self._log_call(call, status, len(body), code, cause, stack)
        return response

    def _sign(self, response: web.Response, call: Call, code: str) -> None:
        response.headers["Server"] = "chips"
        response.headers["X-Request-Id"] = call.request_id
        if self._served:
            response.headers["X-Chips-Model"] = self._served
        timing = [f"{name};dur={ms:.1f}" for name, ms in call.timing.items()]
        if code:
            timing.append(f'error;desc="{code}"')
        response.headers["Server-Timing"] = ", ".join(timing)

    def refuse(self, request: web.BaseRequest, problem: Problem, cause: BaseException | None) -> web.Response:
        """Answer what is no HTTP request that could be routed."""
        call = Call(request)
        body = self._render(problem, call)
        response = web.Response(status=problem.status, body=body, content_type="application/problem+json")
        self._sign(response, call, problem.code)
        response.force_close()
        self._log_call(call, problem.status, len(body), problem.code, cause)
        return response

    async def _answer(self, call: Call) -> bytes:
        methods = self._routes.get(call.path)
        if methods is None and call.path.startswith("/v2/models/"):
            self._need_model()  # whose name may only be known when it is loaded
        if methods is None:
            raise Problem(
                404,
                "not-found",
                f"there is nothing at {call.path[:200]}; GET /openapi.json tells what there is",
            )
        method = "GET" if call.request.method == "HEAD" else call.request.method
        route = methods.get(method)
        if route is None:
            allow = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
            raise Problem(405, "method-not-allowed", f"use {allow} here", headers={"Allow": allow})
        return await route(call)

    # -- routes

    async def _live(self, _: Call) -> bytes:
        return b'{"live":true}'

    async def _ready(self, _: Call) -> bytes:
        loaded = self._need_model()
        if loaded.workers.is_stuck:
            raise Problem(
                503,
                "not-ready",
                "every slot is held by a prediction that is past its deadline",
                headers={"Retry-After": "1"},
            )
        return _encode({"ready": True, "name": loaded.manifest.model})

    async def _describe(self, _: Call) -> bytes:
        self._need_model()
        return self._openapi

    async def _metadata(self, _: Call) -> bytes:
        loaded = self._need_model()
        config, manifest, artifact, facts = self._config, loaded.manifest, loaded.artifact, loaded.facts
        inputs, outputs = manifest.signature.inputs, manifest.signature.outputs
        categories = {tensor.name: tensor.categories for tensor in inputs if tensor.categories is not None}
        return _encode(
            {
                "name": manifest.model,
                "versions": [manifest.version],
                "platform": f"python-{manifest.format}",
                "inputs": [tensor.described() for tensor in inputs],
                "outputs": [tensor.described() for tensor in outputs],
                "parameters": {
                    "concurrency": config.concurrency,
                    "artifact": artifact.address,
                    "artifact_digest": artifact.digest,
                    "accepts": sorted(facts.parameters),
                    **({"classes": self._classes(loaded)} if facts.classes is not None else {}),
                    **({"categories": categories} if categories else {}),
                    **({"rows": manifest.rows} if manifest.rows != "independent" else {}),
                    **({"batch_target_ms": config.batch_target_ms} if config.batch_target_ms else {}),
                },
            }
        )

    def _classes(self, loaded: Loaded) -> Any:
        """The labels of the probabilities, by output name where there are several outputs."""
        outputs = loaded.manifest.signature.outputs
        if len(outputs) < 2:
            return loaded.facts.classes
        return {output.name: labels for output, labels in zip(outputs, loaded.facts.classes, strict=False)}

    async def _predict(self, call: Call) -> bytes:
        loaded = self._need_model()
        known, signature = loaded.facts.parameters, loaded.manifest.signature
        usual = self._instances

        def read(content: bytes, _: memoryview | None) -> Scoring:
            scoring = usual.read(content) if usual and len(content) <= MOST_AT_ONCE else None
            return scoring or read_instances(parse(content), signature, known)

        scoring = await self._parse(call, read)
        predictions = await self._score(call, loaded, scoring)

        def answer() -> dict[str, Any]:
            answered = {
                "predictions": predictions,
                "model": loaded.manifest.model,
                "version": loaded.manifest.version,
            }
            if scoring.parameters.get("classes"):
                answered["classes"] = self._classes(loaded)
            return answered

        return await self._encode_answer(call, answer, predictions, scoring.rows)

    async def _infer(self, call: Call) -> bytes:
        loaded = self._need_model()
        manifest, known = loaded.manifest, loaded.facts.parameters
        signature = manifest.signature
        lengths = call.request.headers.getall(LENGTH_HEADER, ())
        usual = self._tensors

        def read(content: bytes, behind: memoryview | None) -> Scoring:
            scoring = usual.read(content, behind) if usual and len(content) <= MOST_AT_ONCE else None
            return scoring or read_tensors(parse(content), signature, known, behind)

        scoring = await self._parse(call, read, lengths)
        predictions = await self._score(call, loaded, scoring)
        behind: bytes | None = None

        def answer() -> dict[str, Any]:
            nonlocal behind
            outputs = tensor_outputs(predictions, signature, scoring.outputs)
            behind = packed(outputs, scoring.forms)
            answered: dict[str, Any] = {
                "model_name": manifest.model,
                "model_version": manifest.version,
                "outputs": outputs,
            }
            if scoring.parameters.get("classes"):
                answered["parameters"] = {"classes": self._classes(loaded)}
            if scoring.id is not None:
                answered["id"] = scoring.id
            return answered

        content = await self._encode_answer(call, answer, predictions, scoring.rows)
        if behind is None:
            return content
        call.headers = {"Content-Type": MEDIA_TYPE, LENGTH_HEADER: str(len(content))}
        return content + behind

    # -- their parts

    async def _encode_answer(
        self, call: Call, answer: Callable[[], dict[str, Any]], predictions: list[Any], rows: Rows
    ) -> bytes:
        """A large answer off the event loop, a piece at a time, so that other requests get their turn in between."""
        began = time.monotonic()
        try:
            if len(predictions) <= LARGE_ROWS:
                return _encode(answer())

            def work() -> bytes:
                content = render_large(answer())
                release(predictions, *([rows] if isinstance(rows, list) else ()))
                return content

            return await asyncio.get_running_loop().run_in_executor(self._parser, work)
        finally:
            call.timing["render"] = (time.monotonic() - began) * 1000

    def _need_model(self) -> Loaded:
        if self.loaded is None:
            raise Problem(503, "not-ready", "the model is still being loaded", headers={"Retry-After": "1"})
        return self.loaded

    async def _parse(
        self,
        call: Call,
        read: Callable[[bytes, memoryview | None], Scoring],
        lengths: Sequence[str] = (),
    ) -> Scoring:
        """`lengths` are the values of the header that says how much of the body is JSON."""
        kind = call.request.headers.get("Content-Type", _JSON).partition(";")[0].strip().lower()
        if kind != _JSON and not kind.endswith("+json") and not (lengths and kind == MEDIA_TYPE):
            raise Problem(415, "unsupported-media-type", f"send application/json, not {kind[:80]}")
        coding = call.request.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in {"identity", ""}:
            raise Problem(
                415,
                "unsupported-media-type",
                f"send the body as it is, without Content-Encoding: {coding[:80]}",
                headers={"Accept-Encoding": "identity"},
            )
        body = await self._read(call)
        began = time.monotonic()
        try:
            content, behind = split_body(body, lengths)
            if len(body) <= LARGE_BYTES:
                return read(content, behind)
            call.large = True
            self._collector.pause()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._parser, read, content, behind)
        finally:
            call.timing["parse"] = (time.monotonic() - began) * 1000

    async def _read(self, call: Call) -> bytes:
        limit = self._config.max_body_bytes
        request = call.request
        too_large = Problem(413, "payload-too-large", f"the body is larger than {limit} bytes")
        if (request.content_length or 0) > limit:
            raise too_large
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        pieces = []
        async for piece in request.content.iter_any():
            call.bytes_in += len(piece)
            if call.bytes_in > limit:
                raise too_large
            pieces.append(piece)
        return b"".join(pieces)

    async def _score(self, call: Call, loaded: Loaded, scoring: Scoring) -> list[Any]:
        try:
            outcome = await loaded.score(scoring.rows, scoring.parameters, self._deadline(call))
        except CannotTake as error:
            problem = invalid_instances([_placed(scoring, *each) for each in error.problems])
            problem.stack = error.stack
            raise problem from None
        except ModelFailed as error:
            problem = _prediction_failed()
            problem.stack = error.failed.stack
            raise problem from None
        call.timing["queue"] = outcome.queue_s * 1000
        call.timing["predict"] = outcome.predict_s * 1000
        return outcome.predictions

    def _deadline(self, call: Call) -> float | None:
        """When the caller stops waiting, on the loop's clock, by X-Request-Timeout in milliseconds."""
        allowed = call.request.headers.get("X-Request-Timeout", "")
        if not allowed.isascii() or not allowed.isdigit():
            return None
        spent_s = time.monotonic() - call.arrived
        left_s = int(allowed[:12]) / 1000 - spent_s
        if left_s <= 0:
            raise Problem(
                504, "deadline-exceeded", "the time allowed was over before the prediction could begin"
            )
        return asyncio.get_running_loop().time() + left_s

    def _render(self, problem: Problem, call: Call) -> bytes:
        return problem.render(call.request_id, open_inference=call.open_inference)

    def _log_call(
        self,
        call: Call,
        status: int,
        size: int,
        code: str,
        cause: BaseException | None,
        stack: str = "",
    ) -> None:
        request = call.request
        fields: dict[str, Any] = {
            "httpRequest": {
                "requestMethod": request.method,
                "requestUrl": call.path[:512],
                "status": status,
                "requestSize": str(call.bytes_in),
                "responseSize": str(size),
                "latency": f"{time.monotonic() - call.arrived:.6f}s",
            },
            "request_id": call.request_id,
            "timing": {name: round(ms, 3) for name, ms in call.timing.items()},
        }
        if call.caller:
            fields["caller"] = call.caller
        if code:
            fields["code"] = code
        severity = "ERROR" if status >= 500 else "WARNING" if status >= 400 else "INFO"
        if code == "not-ready":
            severity = "INFO"  # a platform asks this often while the model loads
        self._log.request(
            severity=severity,
            message=f"{request.method} {call.path[:200]} {status}",
            trace=call.trace,
            **fields,
        )
        if status < 500 and stack:  # the caller is to blame: what the model said, without the way to it
            self._log.request(
                severity=severity,
                message=f"request {call.request_id} was refused by the model",
                trace=call.trace,
                request_id=call.request_id,
                reason=stack.strip().rpartition("\n")[2],
            )
        elif status >= 500 and (cause is not None or stack):
            self._log.request(
                severity=severity,
                message=f"request {call.request_id} failed",
                trace=call.trace,
                cause=cause,
                request_id=call.request_id,
                **({"stack": stack} if stack else {}),
            )


def _prediction_failed() -> Problem:
    return Problem(500, "prediction-failed", "the prediction failed; the log has the reason under this id")


def _placed(scoring: Scoring, row: int | None, field: int | None, text: str) -> str:
    return text if row is None else f"{scoring.place(row, field)}: {text}"


class _Connection(RequestHandler):
    """Aiohttp's connection, with a problem where its parser refuses a request."""

    __slots__ = ("app",)
    app: App

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            problem = Problem(431, "headers-too-large", "the request line or a header field is too long")
        elif status < 500:
            problem = Problem(400, "bad-request", "the request is not valid HTTP/1.1")
        else:
            problem = Problem(500, "prediction-failed", "the request failed; the log has the reason")
        return self.app.refuse(request, problem, exc if problem.status == 500 else None)


class _Server(web.Server):
    def __init__(self, app: App, **options: Any) -> None:
        super().__init__(app, **options)
        self._app = app

    def __call__(self) -> RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.app = self._app
        return connection


async def listen(app: App, port: int, *, stop_grace_s: float) -> web.ServerRunner:
    """Serve `app` on all interfaces; `cleanup()` of what is returned stops accepting and lets what runs finish."""
    server = _Server(
        app,
        handler_cancellation=True,  # who has left waits no more, and is not predicted
        access_log=None,
        auto_decompress=False,  # a coding is refused, whatever the body is
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        lingering_time=2.0,  # for the rest of a body that was refused
        read_bufsize=_READ_BYTES,
        keepalive_timeout=650.0,  # longer than any caller keeps a connection
    )
    runner = web.ServerRunner(server, shutdown_timeout=stop_grace_s)
    await runner.setup()
    await web.SockSite(runner, _socket(port)).start()
    return runner


def _socket(port: int) -> socket.socket:
    """One socket for all interfaces of both families, so that port 0 means one port."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return socket.create_server(("", port))
