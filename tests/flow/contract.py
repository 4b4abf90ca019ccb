"""A scripted backend that keeps the whole contract, so that a test can break one sentence of it at a time."""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.verify.checks.binary_tensors import LENGTH_HEADER, MEDIA_TYPE, pack_tensor, unpack_tensor
from gateway.verify.conformance_check_type import ContractViolation
from tests.flow.scripted import Message, Peer

JSON = [("Content-Type", "application/json")]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Response(NamedTuple):
    status: int
    content: Any
    fields: Sequence[tuple[str, str]] = ()


def _names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def body_of(response: Response) -> bytes:
    return response.content if isinstance(response.content, bytes) else json.dumps(response.content).encode()


class Contract:
    """Adds up the numbers of each instance. `routes` overrides what a path answers."""

    def __init__(self, name: str = "wine", *versions: str, **metadata: Any) -> None:
        self.metadata: dict[str, Any] = {
            "name": name,
            "versions": list(versions or ("1",)),
            "platform": "sklearn_joblib",
            "inputs": [{"name": "alcohol", "datatype": "FP64", "shape": [-1]}],
            "outputs": [{"name": "prediction", "datatype": "INT64", "shape": [-1]}],
            "parameters": {"concurrency": 2},
            **metadata,
        }
        self.version = (self.metadata["versions"] or ["1"])[-1]
        self.routes: dict[str, tuple[int, bytes, list[tuple[str, str]]]] = {}
        self.not_ready = 0  # so many readiness checks are answered 503
        self.body_limit_bytes = 31 * 1024 * 1024

    async def __call__(self, request: Message, peer: Peer) -> None:
        if request.target in self.routes:
            await peer.answer(*self.routes[request.target])
            return
        answer = self.answer(request)
        await peer.answer(answer.status, body_of(answer), answer.fields, head_only=request.method == "HEAD")

    def answer(self, request: Message) -> Response:
        """The whole answer, with the fields that every one has."""
        methods = self._table().get(request.target)
        if methods is None:
            answer = self._problem(request, 404, "not-found")
        elif request.method not in methods:
            answer = self._problem(request, 405, "method-not-allowed", fields=[("Allow", ", ".join(methods))])
        else:
            answer = methods[request.method](request)
        is_binary = isinstance(answer.content, bytes)
        good = MEDIA_TYPE if is_binary else "application/json"
        kind = good if answer.status == 200 else "application/problem+json"
        return Response(
            answer.status,
            answer.content,
            [
                ("Content-Type", kind),
                ("Server-Timing", "queue;dur=0.0, parse;dur=0.0, predict;dur=0.0, render;dur=0.0"),
                ("X-Chips-Model", f"{self.metadata['name']}@{self.version}"),
                *answer.fields,
            ],
        )

    def _table(self) -> dict[str, dict[str, Callable[[Message], Response]]]:
        table: dict[str, dict[str, Callable[[Message], Response]]] = {
            "/predict": {"POST": self._predict},
            "/v2/health/live": {"GET": lambda _: Response(200, {})},
            "/v2/health/ready": {"GET": self._ready},
            "/openapi.json": {"GET": lambda _: Response(200, self._openapi())},
        }
        model = f"/v2/models/{self.metadata['name']}"
        for path in (model, f"{model}/versions/{self.version}"):
            table[path] = {"GET": lambda _: Response(200, self.metadata)}
            table[f"{path}/ready"] = {"GET": self._ready}
            table[f"{path}/infer"] = {"POST": self._infer}
        return table

    def _ready(self, request: Message) -> Response:
        self.not_ready -= 1
        return self._problem(request, 503, "not-ready") if self.not_ready >= 0 else Response(200, {})

    def _openapi(self) -> dict[str, Any]:
        names = [tensor["name"] for tensor in self.metadata["inputs"]]
        return {
            "openapi": "3.1.0",
            "info": {"title": self.metadata["name"], "version": self.version},
            "paths": {path: {} for path in self._table()},
            "components": {"schemas": {"Instance": {"properties": {name: {} for name in names}}}},
        }

    # -- scores

    def _predict(self, request: Message) -> Response:
        content = self._parsed(request)
        if isinstance(content, Response):
            return content
        instances = content.get("instances") if isinstance(content, dict) else None
        if not isinstance(instances, list) or not isinstance(content.get("parameters", {}), dict):
            return self._problem(request, 422, "invalid-instances")
        problems: list[str] = []
        rows = [self._row(instance, f"instances[{n}]", problems) for n, instance in enumerate(instances)]
        if problems:
            return self._problem(request, 422, "invalid-instances", "; ".join(problems[:10]))
        return Response(
            200,
            {
                "predictions": [self._score(row) for row in rows],
                "model": self.metadata["name"],
                "version": self.version,
            },
        )

    def _infer(self, request: Message) -> Response:
        try:
            length = int(request.get(LENGTH_HEADER) or len(request.body))
            content = self._parsed(request, length)
            if isinstance(content, Response):
                return content
            self._unpack(content["inputs"], request.body[length:])
            columns = self._columns(content["inputs"])
        except (KeyError, TypeError, ValueError, AttributeError, ContractViolation):
            return self._problem(request, 422, "invalid-instances")
        predictions = [self._score(list(row)) for row in zip(*columns, strict=True)]
        output = self.metadata["outputs"][0]
        answer = {
            "model_name": self.metadata["name"],
            "model_version": self.version,
            "outputs": [
                {
                    "name": output["name"],
                    "datatype": output["datatype"],
                    "shape": [len(predictions)],
                    "data": predictions,
                }
            ],
        }
        answer |= {"id": content["id"]} if "id" in content else {}
        return self._in_form(answer, content)

    @staticmethod
    def _unpack(tensors: list[dict[str, Any]], rest: bytes) -> None:
        """Put the values of tensors in binary form where JSON has them."""
        for tensor in tensors:
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is not None:
                values = unpack_tensor(rest[:size], tensor["datatype"]) if 0 <= size <= len(rest) else []
                tensor["data"] = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
                rest = rest[size:]
        if rest:
            raise ValueError("bytes that belong to no tensor")

    @staticmethod
    def _in_form(answer: dict[str, Any], request: dict[str, Any]) -> Response:
        """The answer with its one output as JSON or as bytes, as the request asks."""
        default = request.get("parameters", {}).get("binary_data_output", False)
        (asked,) = request.get("outputs") or [{}]
        if not asked.get("parameters", {}).get("binary_data", default):
            return Response(200, answer)
        (output,) = answer["outputs"]
        content = pack_tensor(output.pop("data"), output["datatype"])
        output["parameters"] = {"binary_data_size": len(content)}
        head = json.dumps(answer).encode()
        return Response(200, head + content, [(LENGTH_HEADER, str(len(head)))])

    def _columns(self, tensors: list[dict[str, Any]]) -> list[list[Any]]:
        by_name = {tensor["name"]: tensor for tensor in tensors}
        if set(by_name) != {tensor["name"] for tensor in self.metadata["inputs"]} or len(by_name) < len(
            tensors
        ):
            raise ValueError("inputs")
        columns = []
        for declared in self.metadata["inputs"]:
            tensor = by_name[declared["name"]]
            data, shape = tensor["data"], tensor["shape"]
            if (
                tensor["datatype"] != declared["datatype"]
                or shape != [len(data)]
                or not isinstance(data, list)
            ):
                raise ValueError("tensor")
            if not all(self._fits(value, declared["datatype"]) for value in data):
                raise ValueError("data")
            columns.append(data)
        return columns

    def _parsed(self, request: Message, length: int | None = None) -> Any:
        """The body's first `length` bytes; or the answer to one that is not read."""
        kinds = ("application/json", *((MEDIA_TYPE,) if request.get(LENGTH_HEADER) else ()))
        if length is not None and not 0 <= length <= len(request.body):
            raise ValueError(LENGTH_HEADER)
        if not (request.get("Content-Type") or "").startswith(kinds):
            return self._problem(request, 415, "unsupported-media-type")
        if len(request.body) > self.body_limit_bytes:
            return self._problem(request, 413, "payload-too-large")
        if request.get("X-Request-Timeout") == "0":
            return self._problem(request, 504, "deadline-exceeded")
        try:
            content = msgspec.json.decode(request.body[:length])
            json.loads(request.body[:length], object_pairs_hook=_names_once)
            return content
        except (ValueError, RecursionError):
            return self._problem(request, 400, "malformed-json")

    def _row(self, instance: Any, where: str, problems: list[str]) -> list[Any]:
        inputs = self.metadata["inputs"]
        names = [tensor["name"] for tensor in inputs]
        if isinstance(instance, dict) and set(instance) == set(names):
            values = [instance[name] for name in names]
        elif isinstance(instance, list) and len(instance) == len(names):
            values = instance
        else:
            problems.append(f"{where}: expected {', '.join(names)}")
            return []
        problems += [
            f"{where}.{tensor['name']}: expected {tensor['datatype']}"
            for tensor, value in zip(inputs, values, strict=True)
            if not self._fits(value, tensor["datatype"])
        ]
        return values

    @staticmethod
    def _fits(value: Any, datatype: str) -> bool:
        if value is None:
            return True
        if datatype == "BYTES":
            return isinstance(value, str)
        kinds = (int, float) if datatype.startswith("FP") else int
        return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < 1e300

    @staticmethod
    def _score(row: list[Any]) -> int:
        return round(sum(value for value in row if isinstance(value, int | float)))

    def _problem(
        self,
        request: Message,
        status: int,
        code: str,
        detail: str = "it will not do",
        fields: Sequence[tuple[str, str]] = (),
    ) -> Response:
        given = request.get("X-Request-Id") or ""
        body = {
            "type": "about:blank",
            "title": code,
            "status": status,
            "code": code,
            "detail": detail,
            "request_id": given if _REQUEST_ID.fullmatch(given) else "made-up",
        }
        if request.target.startswith("/v2/"):
            body["error"] = detail
        return Response(status, body, fields)
