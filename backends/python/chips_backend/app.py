"""The routes of the backend: from a request to a prediction, an answer or a problem document."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from multidict import istr

from chips_backend.binary import LENGTH_HEADER, MEDIA_TYPE, split_body
from chips_backend.config import Config
from chips_backend.decode_instances import Scoring, read_instances
from chips_backend.failure_cause import CannotTake, ModelFailed
from chips_backend.logs import Log
from chips_backend.model import Rows
from chips_backend.open_inference import packed, read_tensors, tensor_outputs
from chips_backend.openapi import describe
from chips_backend.parse_body import LARGE_BYTES, MOST_AT_ONCE, Collector, parse, release
from chips_backend.problem_details import Problem, bad_request, invalid_instances
from chips_backend.render_large_json import LARGE_ROWS, render_large
from chips_backend.request_context import JSON, RequestContext
from chips_backend.response import Response
from chips_backend.service import Loaded
from chips_backend.typed_decoding import Instances
from chips_backend.typed_tensors import Tensors

_encode = msgspec.json.Encoder().encode
_LENGTH_NAME: Final = istr(LENGTH_HEADER)

Route = Callable[[RequestContext], Awaitable[bytes]]


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
        named = f"{config.model}@{config.version}" if config.model and config.version else ""
        self._own_fields = _own_fields(named)
        self._routes = self._table(config.model, config.version)

    def become_ready(self, loaded: Loaded) -> None:
        manifest = loaded.manifest
        self._openapi = _encode(describe(manifest))
        self._instances = Instances(manifest.signature, loaded.facts.parameters)
        self._tensors = Tensors(manifest.signature, loaded.facts.parameters)
        self._own_fields = _own_fields(loaded.served)
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

    async def __call__(self, call: RequestContext) -> Response:
        try:
            try:
                body = await self._answer(call)
            finally:
                if call.large:
                    self._collector.resume()
        except Problem as problem:
            return self._refused(call, problem, problem.__cause__)
        except asyncio.CancelledError:  # the caller has left, or time is up at the end
            call.log(self._log, 499, 0, "client-closed-request", None)
            raise
        except Exception as error:  # noqa: BLE001  (nothing a caller sends may end the process)
            return self._refused(call, _prediction_failed(), error)
        call.log(self._log, 200, len(body), "", None)
        fields = f"{call.fields}{self._own_fields}X-Request-Id: {call.request_id}\r\nServer-Timing: {call.timing()}\r\n"
        return Response(200, fields, body)

    def refuse(self, error: HttpProcessingError) -> Response:
        """Answer what is no HTTP request that could be routed."""
        return self._refused(RequestContext(), bad_request(error), None)

    def _refused(self, call: RequestContext, problem: Problem, cause: BaseException | None) -> Response:
        body = problem.render(call.request_id, open_inference=call.open_inference)
        call.log(self._log, problem.status, len(body), problem.code, cause, problem.stack)
        more = "".join(f"{name}: {value}\r\n" for name, value in problem.headers.items())
        fields = (
            f"Content-Type: application/problem+json\r\n{more}{self._own_fields}X-Request-Id: {call.request_id}\r\n"
            f'Server-Timing: {call.timing()}, error;desc="{problem.code}"\r\n'
        )
        return Response(problem.status, fields, body)

    async def _answer(self, call: RequestContext) -> bytes:
        methods = self._routes.get(call.path)
        if methods is None and call.path.startswith("/v2/models/"):
            self._need_model()  # whose name may only be known when it is loaded
        if methods is None:
            raise Problem(
                404,
                "not-found",
                f"there is nothing at {call.path[:200]}; GET /openapi.json tells what there is",
            )
        method = "GET" if call.method == "HEAD" else call.method
        route = methods.get(method)
        if route is None:
            allow = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
            raise Problem(405, "method-not-allowed", f"use {allow} here", headers={"Allow": allow})
        return await route(call)

    # -- routes

    async def _live(self, _: RequestContext) -> bytes:
        return b'{"live":true}'

    async def _ready(self, _: RequestContext) -> bytes:
        loaded = self._need_model()
        if loaded.workers.is_stuck:
            raise Problem(
                503,
                "not-ready",
                "no slot can take work: each is held by a prediction that is past its deadline, or could not be restarted",
                headers={"Retry-After": "1"},
            )
        return _encode({"ready": True, "name": loaded.manifest.model})

    async def _describe(self, _: RequestContext) -> bytes:
        self._need_model()
        return self._openapi

    async def _metadata(self, _: RequestContext) -> bytes:
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

    async def _predict(self, call: RequestContext) -> bytes:
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

    async def _infer(self, call: RequestContext) -> bytes:
        loaded = self._need_model()
        manifest, known = loaded.manifest, loaded.facts.parameters
        signature = manifest.signature
        lengths = call.head.getall(_LENGTH_NAME, ())
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
        call.fields = f"Content-Type: {MEDIA_TYPE}\r\n{LENGTH_HEADER}: {len(content)}\r\n"
        return content + behind

    # -- their parts

    async def _encode_answer(
        self, call: RequestContext, answer: Callable[[], dict[str, Any]], predictions: list[Any], rows: Rows
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
            call.render_ms = (time.monotonic() - began) * 1000

    def _need_model(self) -> Loaded:
        if self.loaded is None:
            raise Problem(503, "not-ready", "the model is still being loaded", headers={"Retry-After": "1"})
        return self.loaded

    async def _parse(
        self,
        call: RequestContext,
        read: Callable[[bytes, memoryview | None], Scoring],
        lengths: Sequence[str] = (),
    ) -> Scoring:
        """`lengths` are the values of the header that says how much of the body is JSON."""
        kind = call.content_type
        if kind != JSON and not kind.endswith("+json") and not (lengths and kind == MEDIA_TYPE):
            raise Problem(415, "unsupported-media-type", f"send application/json, not {kind[:80]}")
        coding = call.content_encoding
        if coding not in {"identity", ""}:
            raise Problem(
                415,
                "unsupported-media-type",
                f"send the body as it is, without Content-Encoding: {coding[:80]}",
                headers={"Accept-Encoding": "identity"},
            )
        body = await call.read_body(self._config.max_body_bytes)
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
            call.parse_ms = (time.monotonic() - began) * 1000

    async def _score(self, call: RequestContext, loaded: Loaded, scoring: Scoring) -> list[Any]:
        try:
            outcome = await loaded.score(scoring.rows, scoring.parameters, call.deadline())
        except CannotTake as error:
            problem = invalid_instances([_placed(scoring, *each) for each in error.problems])
            problem.stack = error.stack
            raise problem from None
        except ModelFailed as error:
            problem = _prediction_failed()
            problem.stack = error.failed.stack
            raise problem from None
        call.queue_ms = outcome.queue_s * 1000
        call.predict_ms = outcome.predict_s * 1000
        call.shared = outcome.shared
        return outcome.predictions


def _own_fields(served: str) -> str:
    return "Server: chips\r\n" + (f"X-Chips-Model: {served}\r\n" if served else "")


def _prediction_failed() -> Problem:
    return Problem(500, "prediction-failed", "the prediction failed; the log has the reason under this id")


def _placed(scoring: Scoring, row: int | None, field: int | None, text: str) -> str:
    return text if row is None else f"{scoring.place(row, field)}: {text}"
