# Long: one broken backend for each check.
"""One broken backend for each check: the whole contract is kept, but for one sentence."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

from gateway.verify.checks.binary_tensors import LENGTH_HEADER
from tests.flow.contract import JSON, Contract, Response, body_of
from tests.flow.scripted import Message, Peer, ScriptedBackend

INPUTS = [
    {"name": "alcohol", "datatype": "FP64", "shape": [-1]},
    {"name": "bottles", "datatype": "INT64", "shape": [-1]},
    {"name": "region", "datatype": "BYTES", "shape": [-1]},
]
SAMPLES = [
    {
        "request": {"instances": [{"alcohol": 12.0, "bottles": n, "region": "Ahr"}]},
        "response": {"predictions": [12 + n]},
    }
    for n in (1, 2, 3)
]


class Whole(Contract):
    """The contract with a number, an integer and a text as inputs."""

    def __init__(self, **metadata: Any) -> None:
        super().__init__("wine", "1", inputs=INPUTS, **metadata)


class Backend(ScriptedBackend):
    """What is not HTTP is refused with 400, or ends all service where the backend is `frail` in that way."""

    def __init__(self, script: Any, *, frail: Literal["", "garbage", "half", "leaves"] = "") -> None:
        super().__init__(self.answer_strictly)
        self._script = script
        self._frail = frail
        self._served: set[asyncio.Task[None]] = set()
        self._large: list[asyncio.StreamWriter] = []
        self.dead = False

    async def stop(self) -> None:
        await super().stop()
        await asyncio.sleep(0)  # a connection that was accepted just now begins to be served
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._served, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        if self._frail == "leaves" and any(large.transport.is_closing() for large in self._large):
            self.dead = True
        if not self.dead:
            await self._survive(reader, writer)
        writer.close()

    async def _survive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        before = len(self.seen)
        try:
            await super()._serve(reader, writer)
        except (ValueError, IndexError, AssertionError, asyncio.LimitOverrunError):
            self.dead = self._frail == "garbage"
            if not self.dead and not writer.is_closing():
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        else:
            if self._frail == "half" and any(not request.complete for request in self.seen[before:]):
                self.dead = True

    async def answer_strictly(self, request: Message, peer: Peer) -> None:
        if not request.first.endswith(" HTTP/1.1"):
            raise ValueError(request.first)
        if len(request.body) > 10_000:
            self._large.append(peer.writer)
        await self._script(request, peer)


Twist = Callable[[Message, Response], Response]


def twisted(change: Twist, contract: Contract | None = None, *, bodies_on_head: bool = False) -> Backend:
    """A backend whose every answer goes through `change`."""
    contract = contract or Whole()

    async def script(request: Message, peer: Peer) -> None:
        answer = change(request, contract.answer(request))
        head_only = request.method == "HEAD" and not bodies_on_head
        await peer.answer(answer.status, body_of(answer), answer.fields, head_only=head_only)

    return Backend(script)


def where(path: str, **changes: Any) -> Twist:
    """Change members of a good answer at `path`; None takes one away."""

    def change(request: Message, answer: Response) -> Response:
        if request.target != path or answer.status != 200:
            return answer
        content = {**answer.content, **changes}
        return answer._replace(content={name: value for name, value in content.items() if value is not None})

    return change


def status_at(path: str, status: int, *, after: int = 0) -> Twist:
    """Answer `status` at `path`, from the request number `after` on."""
    count = 0

    def change(request: Message, answer: Response) -> Response:
        nonlocal count
        if request.target != path:
            return answer
        count += 1
        return answer._replace(status=status) if count > after else answer

    return change


def refuses_nothing(_: Message, answer: Response) -> Response:
    return Response(200, {"predictions": []}, JSON) if answer.status >= 400 else answer


def predictions(change: Callable[[list[Any]], Any]) -> Twist:
    """Change the predictions of every good answer."""

    def twist(_: Message, answer: Response) -> Response:
        if answer.status != 200 or "predictions" not in answer.content:
            return answer
        return answer._replace(
            content={**answer.content, "predictions": change(answer.content["predictions"])}
        )

    return twist


def field(name: str, value: str | None, *, only: Callable[[Response], bool] = lambda _: True) -> Twist:
    """Put another header field, or none, in the place of one."""

    def twist(_: Message, answer: Response) -> Response:
        if not only(answer):
            return answer
        kept = [(n, v) for n, v in answer.fields if n != name]
        return answer._replace(fields=kept if value is None else [*kept, (name, value)])

    return twist


def on_request(matches: Callable[[Message], bool], status: int, content: Any = None) -> Twist:
    """Answer certain requests with `status`."""

    def twist(request: Message, answer: Response) -> Response:
        return (
            Response(status, {} if content is None else content, answer.fields)
            if matches(request)
            else answer
        )

    return twist


def infers(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Twist:
    """Change good answers to tensors."""

    def twist(request: Message, answer: Response) -> Response:
        good = answer.status == 200 and request.target.endswith("/infer") and isinstance(answer.content, dict)
        return answer._replace(content=change(answer.content)) if good else answer

    return twist


def output(**changes: Any) -> Twist:
    return infers(lambda content: {**content, "outputs": [{**content["outputs"][0], **changes}]})


def _binary(request: Message) -> bool:
    return request.get(LENGTH_HEADER) is not None


def in_binary_requests(change: Twist) -> Twist:
    return lambda request, answer: change(request, answer) if _binary(request) else answer


def binary_answers(change: Callable[[bytes], bytes]) -> Twist:
    """Change the bodies of answers in binary form."""

    def twist(_: Message, answer: Response) -> Response:
        is_binary = isinstance(answer.content, bytes)
        return answer._replace(content=change(answer.content)) if is_binary else answer

    return twist


def reflects_request_ids(request: Message, answer: Response) -> Response:
    given = request.get("X-Request-Id")
    if answer.status < 400 or given is None:
        return answer
    return answer._replace(content={**answer.content, "request_id": given})


def by_field_order(request: Message, answer: Response) -> Response:
    """As a matrix made from the values of an object, in whatever order they come."""
    if request.target != "/predict" or answer.status != 200:
        return answer
    found = [
        next(iter(row.values())) for row in json.loads(request.body)["instances"] if isinstance(row, dict)
    ]
    return answer._replace(
        content={**answer.content, "predictions": [0 if isinstance(v, str) else 1 for v in found]}
    )


def _array_rows(request: Message) -> bool:
    return request.body.startswith(b'{"instances":[[')


def _mixing() -> Backend:
    """A shared variable where each request should have had its own."""
    contract = Whole()
    shared: list[Response] = []

    async def script(request: Message, peer: Peer) -> None:
        shared.append(contract.answer(request))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answer = shared[-1] if request.target == "/predict" else contract.answer(request)
        await peer.answer(answer.status, json.dumps(answer.content).encode(), answer.fields)

    return Backend(script)


# -- silently wrong with 200: what is learned from the request, or from how many rows it has

Rows = list[list[Any]]


def _sum(row: list[Any]) -> float:
    return float(sum(value for value in row if isinstance(value, int | float)))


def two_outputs(row: list[Any]) -> list[float]:
    return [_sum(row), -_sum(row)]


def categories_by_request(rows: Rows, _: list[Any]) -> list[Any]:
    """Codes in the order in which this request's values come, as pandas gives them where nobody says otherwise."""
    codes = {bottles: code for code, bottles in enumerate(dict.fromkeys(row[1] for row in rows))}
    return [codes[row[1]] for row in rows]


def scaled_by_request(rows: Rows, answers: list[Any]) -> list[Any]:
    """A scaler that is fitted when it predicts."""
    mean = sum(answers) / len(answers)
    return [answer - mean for answer in answers]


def rounded_by_request(rows: Rows, answers: list[Any]) -> list[Any]:
    """A difference in the fourth digit, and only in company."""
    return [answer * (1 + 1e-4 * (len(rows) > 1)) for answer in answers]


def shape_by_request(rows: Rows, answers: list[Any]) -> list[Any]:
    """np.squeeze: one row loses a dimension."""
    return answers if len(rows) == 1 else [[answer] for answer in answers]


def cumulated(rows: Rows, answers: list[Any]) -> list[Any]:
    """A feature that counts the rows before."""
    return [answer + place for place, answer in enumerate(answers)]


def sorted_answers(rows: Rows, answers: list[Any]) -> list[Any]:
    return sorted(answers)


def without_doubles(rows: Rows, answers: list[Any]) -> list[Any]:
    return list(dict.fromkeys(answers))


def ranked_in_company(rows: Rows, answers: list[Any]) -> list[Any]:
    """How many rows are the same: right for distinct rows."""
    return [answer * rows.count(row) for row, answer in zip(rows, answers, strict=True)]


def transposed(rows: Rows, answers: list[Any]) -> list[Any]:
    """The list of outputs is taken for the list of rows."""
    return [list(column) for column in zip(*answers, strict=True)]


def transposed_where_square(rows: Rows, answers: list[Any]) -> list[Any]:
    """Whichever way has as many entries as there are rows is taken: wrong where both have."""
    turned = transposed(rows, answers)
    return turned if len(turned) == len(rows) else answers


def reversed_tensors(content: dict[str, Any]) -> dict[str, Any]:
    (given,) = content["outputs"]
    return {**content, "outputs": [{**given, "data": given["data"][::-1]}]}


class ByRows(Whole):
    """Answers `one_each` row, then lets `change` see all rows of the request."""

    def __init__(
        self,
        change: Callable[[Rows, list[Any]], list[Any]],
        one_each: Callable[[list[Any]], Any] = _sum,
        **metadata: Any,
    ) -> None:
        super().__init__(**metadata)
        self._change = change
        self._one_each = one_each

    def _predict(self, request: Message) -> Response:
        answer = super()._predict(request)
        if answer.status != 200 or not answer.content["predictions"]:
            return answer
        instances = json.loads(request.body)["instances"]
        rows = [list(row.values()) if isinstance(row, dict) else row for row in instances]
        found = self._change(rows, [self._one_each(row) for row in rows])
        return answer._replace(content={**answer.content, "predictions": found})


def _by_rows(
    change: Callable[[Rows, list[Any]], list[Any]], one_each: Callable[[list[Any]], Any] = _sum
) -> Callable[[], Backend]:
    return lambda: Backend(ByRows(change, one_each))


def _counts_requests() -> Backend:
    """A model with a memory."""
    seen: list[int] = []

    def change(rows: Rows, answers: list[Any]) -> list[Any]:
        seen.append(0)
        return [answer + len(seen) for answer in answers]

    return Backend(ByRows(change))


def _hangs_up_after_one() -> Backend:
    contract = Whole()

    async def script(request: Message, peer: Peer) -> None:
        await contract(request, peer)
        peer.close()

    return Backend(script)


class StillClock:
    """Stands for `time` in the kit's client. Only a broken backend moves it, so that no pause of the machine counts."""

    now_s = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now_s


def _stalls() -> Backend:
    """Each answer on a connection but the first comes late by `StillClock`, as with a delayed acknowledgement."""
    contract = Whole()
    met: set[Peer] = set()

    async def script(request: Message, peer: Peer) -> None:
        if peer in met:
            StillClock.now_s += 0.1
        met.add(peer)
        await contract(request, peer)

    return Backend(script)


def _frail(how: Literal["half", "leaves"]) -> Callable[[], Backend]:
    return lambda: Backend(Whole(), frail=how)


def _with(**metadata: Any) -> Callable[[], Backend]:
    return lambda: Backend(Whole(**metadata))


def _broken(change: Twist) -> Callable[[], Backend]:
    return lambda: twisted(change)


def _fresh(make: Callable[..., Twist], *arguments: Any, **options: Any) -> Callable[[], Backend]:
    """For changes that count: each backend counts for itself."""
    return lambda: twisted(make(*arguments, **options))


MODEL = "/v2/models/wine"
GROUPS_THAT_REFUSE = ("malformed", "invalid", "tensors", "not-found", "method", "media-type", "size")
_TIMING = "Server-Timing"

# By check: backends that break just that. A check that refuses bad input fails where nothing is refused.
BROKEN: dict[str, list[Callable[[], Backend]]] = {
    "about/live": [_broken(status_at("/v2/health/live", 500))],
    "about/ready": [_fresh(status_at, "/v2/health/ready", 503, after=1)],
    "about/model-ready": [_broken(status_at(f"{MODEL}/ready", 404))],
    "about/metadata": [
        _with(versions=["2"]),
        _with(versions="1"),
        _with(platform=""),
        _with(outputs=[{"name": "prediction"}]),
        _with(outputs=[{"name": "prediction", "datatype": "float", "shape": [-1]}]),
        _with(outputs=[{"name": "prediction", "datatype": "FP64"}]),
        _broken(where(MODEL, name="iris")),
        _broken(where(MODEL, inputs=None)),
        _broken(on_request(lambda r: r.target == MODEL, 200, ["wine"])),
        _broken(on_request(lambda r: r.target == MODEL, 200, b"{")),
    ],
    "about/version-metadata": [_broken(status_at(f"{MODEL}/versions/1", 404)), _broken(where(f"{MODEL}/versions/1", name="x"))],
    "about/concurrency": [_with(parameters={}), _with(parameters={"concurrency": 0}), _with(parameters={"concurrency": True})],
    "about/openapi": [
        _broken(where("/openapi.json", openapi="3.0.3")),
        _broken(where("/openapi.json", info={})),
        _broken(where("/openapi.json", paths={"/predict": {}})),
        _broken(where("/openapi.json", components={})),
        _broken(status_at("/openapi.json", 404)),
    ],
    "predict/answer": [
        _broken(where("/predict", version="2")),
        _broken(where("/predict", model=None)),
        _broken(predictions(lambda found: found * 2)),
        _broken(field("Content-Type", "text/html")),
    ],
    "predict/samples": [_broken(predictions(lambda found: [value + 1 for value in found]))],
    "predict/array-form": [
        _broken(on_request(_array_rows, 422)),
        _broken(lambda r, a: predictions(lambda found: [0 for _ in found])(r, a) if _array_rows(r) else a),
    ],
    "predict/field-order": [_broken(by_field_order)],
    "predict/no-instances": [
        _broken(on_request(lambda r: r.body == b'{"instances":[]}', 500)),
        _broken(predictions(lambda found: found or [1])),
    ],
    "predict/many-instances": [_broken(predictions(lambda found: found[:100]))],
    "predict/missing-value": [
        _broken(on_request(lambda r: b"null" in r.body, 200, b'{"predictions": [NaN]}')),
        _broken(on_request(lambda r: b"null" in r.body, 500)),
        _broken(on_request(lambda r: b"null" in r.body, 400)),
    ],
    "predict/charset": [_broken(on_request(lambda r: "charset" in (r.get("Content-Type") or ""), 415))],
    "predict/white-space": [_broken(on_request(lambda r: r.body.startswith(b"\n"), 400))],
    "predict/chunked": [_broken(on_request(lambda r: r.get("Transfer-Encoding") is not None, 411))],
    "infer/answer": [
        _broken(output(shape=[7])),
        _broken(infers(lambda content: {**content, "outputs": []})),
        _broken(infers(lambda content: {**content, "outputs": [{"name": "prediction"}]})),
        _broken(infers(lambda content: {**content, "model_name": "iris"})),
        _broken(status_at(f"{MODEL}/infer", 500)),
    ],
    "infer/version": [
        _broken(infers(lambda content: {**content, "model_version": "2"})),
        _broken(status_at(f"{MODEL}/versions/1/infer", 404)),
    ],
    "infer/id": [
        _broken(infers(lambda content: {name: value for name, value in content.items() if name != "id"})),
        _broken(infers(lambda content: {"id": "made-up", **content})),
    ],
    "infer/same-scores": [_broken(output(data=[0]))],
    "infer/datatype": [_broken(output(datatype="FP64")), _broken(output(name="score"))],
    "binary/request": [
        _broken(in_binary_requests(output(data=[0]))),
        _broken(on_request(_binary, 500)),
    ],
    "binary/answer": [
        _broken(binary_answers(lambda body: body[:-8] + body[-8:][::-1])),
        _broken(binary_answers(lambda body: body + b"\0")),
        _broken(binary_answers(lambda body: body[:-1])),
        _broken(field(LENGTH_HEADER, None, only=lambda answer: isinstance(answer.content, bytes))),
        _broken(field("Content-Type", "application/json", only=lambda answer: isinstance(answer.content, bytes))),
        _broken(on_request(lambda r: b"binary_data_output" in r.body, 422)),
    ],
    "binary/chosen": [_broken(on_request(lambda r: b'"binary_data":false' in r.body, 422))],
    "binary/missing-value": [_broken(on_request(lambda r: _binary(r) and b"\xf8\x7f" in r.body, 422))],
    "binary/lengths": [
        _broken(lambda r, a: Response(200, {"outputs": []}, a.fields) if a.status == 422 and _binary(r) else a),
        _broken(lambda r, a: a._replace(status=400) if a.status == 422 and _binary(r) else a),
    ],
    "rows/repeated": [_counts_requests],
    "rows/together": [
        _by_rows(categories_by_request), _by_rows(scaled_by_request), _by_rows(shape_by_request), _by_rows(cumulated),
        _by_rows(rounded_by_request),
    ],
    "rows/reversed": [_by_rows(sorted_answers), _by_rows(categories_by_request)],
    "rows/doubled": [_by_rows(without_doubles), _by_rows(ranked_in_company)],
    "rows/any-number": [_by_rows(transposed_where_square, one_each=two_outputs), _by_rows(transposed, one_each=two_outputs)],
    "rows/at-once": [_mixing],
    "rows/tensors": [_broken(infers(reversed_tensors)), _broken(output(shape=[1, 3]))],
    "headers/x-chips-model": [_broken(field("X-Chips-Model", None)), _broken(field("X-Chips-Model", "wine@9"))],
    "headers/server-timing": [
        _broken(field(_TIMING, None)),
        _broken(field(_TIMING, "queue;dur=0")),
        _broken(field(_TIMING, "queue;dur=0, parse;dur=0, predict;dur=-1, render;dur=0")),
        _broken(field(_TIMING, "queue;dur=0, parse;dur=0, predict;dur=99999, render;dur=0")),
        _broken(field(_TIMING, "queue;dur=x")),
        _broken(field(_TIMING, "()")),
    ],
    "headers/server-timing-everywhere": [_broken(field(_TIMING, None, only=lambda answer: answer.status == 404))],
    "headers/no-5xx": [_broken(status_at("/no-such-path", 500))],
    "headers/request-id": [_broken(lambda r, a: a._replace(content={**a.content, "request_id": "mine"}) if a.status >= 400 else a)],
    "headers/bad-request-id": [_broken(reflects_request_ids)],
    "headers/bad-trace": [_broken(on_request(lambda r: (r.get("traceparent") or "").startswith("ff"), 400))],
    "headers/deadline": [_broken(on_request(lambda r: r.get("X-Request-Timeout") == "0", 200, {"predictions": [1]}))],
    "headers/deadline-later": [
        _broken(on_request(lambda r: r.get("X-Request-Timeout") == "soon", 500)),
        _broken(on_request(lambda r: r.get("X-Request-Timeout") == "30000", 504)),
    ],
    "headers/kept-alive": [_hangs_up_after_one],
    "headers/no-stall": [_stalls],
    "http/path-tricks": [_broken(on_request(lambda r: "passwd" in r.target, 200, {"root": "x"}))],
    "http/half-a-body": [_frail("half")],
    "http/caller-leaves": [_frail("leaves")],
    "http/expect": [_broken(on_request(lambda r: r.get("Expect") is not None, 417))],
    "http/upgrade": [
        _broken(on_request(lambda r: r.get("Upgrade") == "websocket" and r.target == "/predict", 101)),
        _broken(on_request(lambda r: r.get("Upgrade") == "h2c" and bool(r.body), 500)),
        _broken(on_request(lambda r: (r.get("Upgrade") or "").startswith("TLS"), 426)),
    ],
    "http/head": [lambda: twisted(lambda _, answer: answer, bodies_on_head=True)],
    "load/burst": [_fresh(status_at, "/predict", 503, after=3), _fresh(status_at, "/predict", 500, after=3)],
    "load/concurrency": [
        _broken(field(_TIMING, "predict;dur=60000")),
        _broken(field(_TIMING, "predict;dur=60000;shared=2")),
    ],
    "load/parallel": [_broken(field(_TIMING, "queue;dur=90, predict;dur=30"))],
}  # fmt: skip
