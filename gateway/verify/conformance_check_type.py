"""The type of a conformance check, with its context and its result.

A check is a sentence of the contract, and the function that checks a backend for it.
"""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from gateway.core.model import Tensor
from gateway.verify.backend_process import BackendProcess
from gateway.verify.raw_http import Fields, NoCompleteResponse, RawClient, RawRequest, RawResponse

JSON: Fields = (("Content-Type", "application/json"),)
_SERVER_TIMING = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(\s*;\s*[a-z]+=[^;,]+)*", re.IGNORECASE)


class ContractViolation(Exception):
    """The backend does not do what the contract says. The text says how."""


class CheckSkipped(Exception):
    """The check is skipped. It does not apply here, or needs what was not given; the text says which."""


class NotPossibleOnThisMachine(CheckSkipped):
    """The check is not possible on this machine. What the backend does makes no difference."""


class Sample(msgspec.Struct, frozen=True):
    """A sample request and its published answer. It comes from a manifest."""

    request: dict[str, Any]
    response: dict[str, Any]
    tolerance: float = 1e-6


@dataclass
class CheckContext:
    """The context of a check: the backend under test, and what is known about it. It keeps every exchange so far."""

    client: RawClient
    model: str
    version: str
    samples: Sequence[Sample] = ()
    process: BackendProcess | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Tensor, ...] = ()
    good: dict[str, Any] | None = None  # a request body that the backend answers with predictions
    body_limit_bytes: int = 31 * 1024 * 1024
    rows_policy: str = ""  # "together": the model looks at all rows of a request on purpose
    groups: list[Any] | None = None  # rows to compare with each other, once they were found
    exchanges: list[tuple[RawRequest, RawResponse]] = field(default_factory=list)
    last: tuple[RawRequest, RawResponse | NoCompleteResponse] | None = None
    early: list[tuple[int, int]] = field(
        default_factory=list
    )  # statuses of predict and ready during the start

    @property
    def open_inference(self) -> str:
        return f"/v2/models/{self.model}"

    async def send_and_record(self, request: RawRequest) -> RawResponse:
        """Send a request and record the exchange. Raises ContractViolation where no response comes."""
        try:
            response = await self.client.request(request)
        except NoCompleteResponse as error:
            self.last = (request, error)
            raise ContractViolation(str(error)) from None
        self.last = (request, response)
        if request.raw is None:
            self.exchanges.append((request, response))
        return response

    async def get(self, path: str, fields: Fields = ()) -> RawResponse:
        return await self.send_and_record(RawRequest("GET", path, fields))

    async def post(self, path: str, content: Any, fields: Fields = JSON) -> RawResponse:
        """POST `content` as JSON; bytes are sent as they are."""
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        return await self.send_and_record(RawRequest("POST", path, fields, body))

    def last_exchange(self) -> tuple[str, str]:
        """The last request and its response, as text to show people."""
        return (str(self.last[0]), str(self.last[1])) if self.last is not None else ("", "")

    def require_good_request(self) -> dict[str, Any]:
        if self.good is None:
            raise CheckSkipped("no request is known that the backend answers: give --samples manifest.json")
        return self.good

    def require_inputs(self) -> tuple[Tensor, ...]:
        if not self.inputs:
            raise CheckSkipped("the backend's metadata names no inputs")
        return self.inputs

    def require_process(self) -> BackendProcess:
        if self.process is None:
            raise CheckSkipped("needs the process itself: let the kit start it with --command")
        return self.process

    async def require_still_serving(self) -> None:
        """Raise ContractViolation unless the backend still serves.

        It must answer the next good request, whatever was sent before.
        """
        before = self.last
        if self.good is not None:
            response = await self.post("/predict", self.good)
        else:
            response = await self.get("/v2/health/ready")
        if response.status != 200:
            raise ContractViolation(
                f"after this request:\n{before[0] if before else ''}\nthe next good one got {response.status}"
            )
        self.last = before


@dataclass(frozen=True)
class Check:
    """One conformance check: name, what the contract says, and the function that checks it."""

    name: str  # group/what
    contract: str
    run: Callable[[CheckContext], Awaitable[None]]
    short: bool = False  # part of the short form, which `chips register` runs

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


def check(
    name: str, contract: str, *, short: bool = False
) -> Callable[[Callable[[CheckContext], Awaitable[None]]], Check]:
    """A decorator that makes a Check of a function."""

    def make(run: Callable[[CheckContext], Awaitable[None]]) -> Check:
        return Check(name, contract, run, short)

    return make


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. It passed, failed or was skipped, and why, with what was sent and received."""

    check: Check
    outcome: Literal["passed", "failed", "skipped"]
    why: str = ""
    sent: str = ""
    response: str = ""
    seconds: float = 0.0
    machine_refused: bool = False  # skipped, and another machine could check it


async def run_check(check: Check, context: CheckContext) -> CheckResult:
    """Run one check and return its result. An unexpected error fails this check alone."""
    began = time.monotonic()
    context.last = None
    outcome: Literal["passed", "failed", "skipped"] = "passed"
    why = ""
    machine_refused = False
    try:
        await check.run(context)
    except ContractViolation as wrong:
        outcome, why = "failed", str(wrong)
    except CheckSkipped as reason:
        outcome, why = "skipped", str(reason)
        machine_refused = isinstance(reason, NotPossibleOnThisMachine)
    except NoCompleteResponse as error:
        outcome, why = "failed", str(error)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
        # A check reads an answer as the contract says it is; what else a backend may send has no end.
        outcome, why = "failed", f"the answer has another shape: {type(error).__name__}: {error}"
    sent, response = context.last_exchange()
    return CheckResult(check, outcome, why, sent, response, time.monotonic() - began, machine_refused)


# -- what checks say again and again


def require_status(response: RawResponse, *statuses: int) -> None:
    """Raise ContractViolation unless the response has one of `statuses`."""
    if response.status not in statuses:
        raise ContractViolation(f"status {response.status} instead of {' or '.join(map(str, statuses))}")


def require_json(response: RawResponse) -> Any:
    """Raise ContractViolation unless the response is JSON; return its body. Its content type must be, too."""
    kind = response.get("Content-Type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ContractViolation(f"Content-Type is {kind or 'missing'} instead of application/json")
    try:
        return response.json()
    except ValueError as error:
        raise ContractViolation(f"the body is not JSON: {error}") from None


def require_problem(request: RawRequest, response: RawResponse, status: int, code: str) -> dict[str, Any]:
    """Raise ContractViolation unless the response is a problem document with `status` and `code`; return it."""
    require_status(response, status)
    kind = response.get("Content-Type").partition(";")[0].strip().lower()
    if kind != "application/problem+json":
        raise ContractViolation(f"Content-Type is {kind or 'missing'} instead of application/problem+json")
    try:
        body = response.json()
    except ValueError as error:
        raise ContractViolation(f"the problem is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ContractViolation("the problem is not an object")
    missing = [
        name for name in ("type", "title", "status", "code", "detail", "request_id") if name not in body
    ]
    if missing:
        raise ContractViolation(f"the problem has no {', '.join(missing)}")
    if body["code"] != code:
        raise ContractViolation(f"code is {body['code']!r} instead of {code!r}")
    if body["status"] != status:
        raise ContractViolation(f"the problem says status {body['status']!r}, the answer {status}")
    if not isinstance(body["detail"], str) or not body["detail"]:
        raise ContractViolation("detail says nothing")
    if request.path.startswith("/v2/") and body.get("error") != body["detail"]:
        raise ContractViolation('on /v2/ routes the member "error" must hold the same text as "detail"')
    return body


def require_server_timing(response: RawResponse) -> dict[str, float]:
    """Raise ContractViolation unless the response has Server-Timing; return its durations.

    They are in milliseconds, by name.
    """
    value = response.get("Server-Timing")
    if not value:
        raise ContractViolation("there is no Server-Timing")
    durations = {}
    for entry in value.split(","):
        if not _SERVER_TIMING.fullmatch(entry.strip()):
            raise ContractViolation(f"Server-Timing holds {entry.strip()!r}")
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, number = parameter.partition("=")
            if key.strip().lower() == "dur":
                try:
                    durations[name] = float(number.strip('" '))
                except ValueError:
                    raise ContractViolation(f"Server-Timing holds {entry.strip()!r}") from None
    return durations


def require_predictions(response: RawResponse) -> list[Any]:
    """Raise ContractViolation unless the response has predictions; return them. It must be 200 with a list."""
    require_status(response, 200)
    content = require_json(response)
    if not isinstance(content, dict) or not isinstance(content.get("predictions"), list):
        raise ContractViolation('the answer holds no list "predictions"')
    found: list[Any] = content["predictions"]
    return found


def is_close_json(got: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within `tolerance`.

    The tolerance is absolute, or relative to the larger. `chips_backend.predictions_as_json.is_close` is the same rule;
    neither package may import the other, so a test compares the two.
    """
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, int | float) and isinstance(wanted, int | float):
        return abs(got - wanted) <= max(tolerance, tolerance * max(abs(got), abs(wanted)))
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(
            is_close_json(g, w, tolerance) for g, w in zip(got, wanted, strict=True)
        )
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(
            is_close_json(got[key], wanted[key], tolerance) for key in got
        )
    return bool(got == wanted)
