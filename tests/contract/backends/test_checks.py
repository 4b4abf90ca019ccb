"""The kit itself: a backend that keeps the contract passes, and each check fires where its sentence is broken."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from chips_backend import predictions_as_json

from gateway.verify.conformance_check_type import (
    Check,
    CheckContext,
    CheckResult,
    CheckSkipped,
    ContractViolation,
    Sample,
    is_close_json,
    require_problem,
    require_server_timing,
    run_check,
)
from gateway.verify.raw_http import RawClient, RawRequest, RawResponse
from gateway.verify.run import CHECKS, ArtifactManifestSubset, VerificationReport, select_checks, verify
from tests.contract.backends.broken import (
    BROKEN,
    GROUPS_THAT_REFUSE,
    SAMPLES,
    Backend,
    ByRows,
    StillClock,
    Whole,
    categories_by_request,
    field,
    on_request,
    refuses_nothing,
    rounded_by_request,
    scaled_by_request,
    transposed,
    twisted,
)
from tests.flow.contract import Response
from tests.patience import patience

MANIFEST = ArtifactManifestSubset("wine", "1", msgspec.convert(SAMPLES, tuple[Sample, ...]))
NEEDS_PROCESS = ("logs", "fetch", "life")
BY_NAME = {check.name: check for check in CHECKS}
# A check of all answers so far needs some answers so far.
BEFORE = {"headers/server-timing-everywhere": ["not-found/path"], "headers/no-5xx": ["not-found/path"]}


async def check_against(backend: Backend, checks: list[Check]) -> VerificationReport:
    await backend.start()
    try:
        return await verify(backend.url, manifest=MANIFEST, checks=checks, wait_s=5)
    finally:
        await backend.stop()


async def test_a_backend_that_keeps_the_contract_passes_every_check():
    report = await check_against(Backend(Whole()), list(CHECKS))
    assert [(r.check.name, r.why) for r in report.results if r.outcome == "failed"] == []
    skipped = {r.check.name for r in report.results if r.outcome == "skipped"}
    assert {name.partition("/")[0] for name in skipped} <= {*NEEDS_PROCESS}, skipped


def broken_backends() -> list[Any]:
    cases = [
        pytest.param(name, make, id=f"{name}-{number}")
        for name, makes in BROKEN.items()
        for number, make in enumerate(makes)
    ]
    refusing = [check.name for check in CHECKS if check.group in GROUPS_THAT_REFUSE]
    return cases + [pytest.param(name, lambda: twisted(refuses_nothing), id=name) for name in refusing]


@pytest.mark.parametrize(("name", "make"), broken_backends())
async def test_a_check_fires_where_its_sentence_is_broken(
    name: str, make: Callable[[], Backend], monkeypatch: pytest.MonkeyPatch
):
    if name == "headers/no-stall":
        monkeypatch.setattr("gateway.verify.raw_http.time", StillClock)
    checks = [BY_NAME[before] for before in BEFORE.get(name, [])] + [BY_NAME[name]]
    result = (await check_against(make(), checks)).results[-1]
    assert result.outcome == "failed", result
    assert result.why
    assert result.sent
    assert result.response


async def test_a_call_that_requests_share_counts_once():
    backend = twisted(field("Server-Timing", "queue;dur=0.0, predict;dur=60000;shared=900000"))
    (result,) = (await check_against(backend, [BY_NAME["load/concurrency"]])).results
    assert result.outcome == "passed", result


@pytest.mark.parametrize("body", [b"", {"status": 400, "code": "bad-request"}], ids=["a head", "a problem"])
async def test_an_upgrade_may_be_refused_with_400(body: Any):
    backend = twisted(on_request(lambda request: request.get("Upgrade") is not None, 400, body))
    (result,) = (await check_against(backend, [BY_NAME["http/upgrade"]])).results
    assert result.outcome == "passed", result


def test_every_check_is_shown_to_fire_somewhere():
    shown = {case.values[0] for case in broken_backends()}
    elsewhere = {check.name for check in CHECKS if check.group in NEEDS_PROCESS}  # test_wrong_programs
    raw = {check.name for check in CHECKS if check.group == "http"} - set(BROKEN)  # below
    assert {check.name for check in CHECKS} == shown | elsewhere | raw


@pytest.mark.parametrize("name", [c.name for c in CHECKS if c.group == "http" and c.name not in BROKEN])
async def test_what_is_not_http_must_not_end_the_service(name: str):
    result = (await check_against(Backend(Whole(), frail="garbage"), [BY_NAME[name]])).results[-1]
    assert result.outcome == "failed", result


def test_names_are_unique_and_the_short_form_is_short():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(check.contract for check in CHECKS)
    assert 15 <= len(select_checks([], short=True)) <= 30
    assert {check.name for check in select_checks(["infer", "about/live"])} == {
        *(name for name in names if name.startswith("infer/")),
        "about/live",
    }
    assert sum(check.group in {"malformed", "invalid", "tensors"} for check in CHECKS) > 30


# -- rows against each other

ROWS = select_checks(["rows"])
RANKS: dict[str, Any] = {"parameters": {"concurrency": 2, "rows": "together"}}


async def outcomes(backend: Backend, manifest: ArtifactManifestSubset = MANIFEST) -> dict[str, CheckResult]:
    await backend.start()
    try:
        report = await verify(backend.url, manifest=manifest, checks=ROWS, wait_s=5)
    finally:
        await backend.stop()
    return {result.check.name: result for result in report.results}


@pytest.mark.parametrize(
    ("backend", "manifest"),
    [
        (lambda: Backend(ByRows(scaled_by_request, **RANKS)), MANIFEST),
        (
            lambda: Backend(ByRows(scaled_by_request)),
            ArtifactManifestSubset("wine", "1", rows_policy="together"),
        ),
    ],
    ids=["the backend says so", "the manifest says so"],
)
async def test_a_model_that_looks_at_all_rows_on_purpose_says_so(
    backend: Callable[[], Backend], manifest: ArtifactManifestSubset
):
    for result in (await outcomes(backend(), manifest)).values():
        assert (result.outcome, "together" in result.why) == ("skipped", True), result


async def test_floats_may_differ_in_their_last_digits():
    """Numeric libraries add up in another order for many rows than for one."""
    backend = Backend(ByRows(lambda rows, answers: [a * (1 + 1e-7 * len(rows)) for a in answers]))
    failed = {name for name, result in (await outcomes(backend)).items() if result.outcome == "failed"}
    assert failed == set()


async def test_small_numbers_are_held_to_their_own_size():
    backend = Backend(ByRows(rounded_by_request, lambda row: row[1] * 1e-12))
    assert (await outcomes(backend))["rows/together"].outcome == "failed"


async def test_a_sample_that_allows_more_allows_it_here_too():
    samples = [{**sample, "tolerance": 0.01} for sample in SAMPLES]
    loose = ArtifactManifestSubset("wine", "1", msgspec.convert(samples, tuple[Sample, ...]))
    assert (await outcomes(Backend(ByRows(rounded_by_request)), loose))["rows/together"].outcome == "passed"


async def test_without_samples_rows_are_made_from_the_one_that_is_known():
    result = (await outcomes(Backend(ByRows(categories_by_request)), ArtifactManifestSubset()))[
        "rows/together"
    ]
    assert result.outcome == "failed"
    assert "together with others" in result.why


async def test_the_categories_of_the_metadata_are_tried():
    def by_text(rows: list[list[Any]], _: list[Any]) -> list[Any]:
        return categories_by_request([[row[0], row[2]] for row in rows], _)

    named = {"concurrency": 2, "categories": {"region": ["Ahr", "Nahe", "Saar"]}}
    one = ArtifactManifestSubset("wine", "1", MANIFEST.samples[:1])
    result = (await outcomes(Backend(ByRows(by_text, parameters=named)), one))["rows/together"]
    assert (result.outcome, "Nahe" in result.why) == ("failed", True), result


async def test_probabilities_are_held_against_each_other_where_the_model_has_them():
    class Asked(ByRows):
        def _predict(self, request: Any) -> Response:
            wants = b"probabilities" in request.body
            return super()._predict(request) if wants else Whole._predict(self, request)

    contract = Asked(
        transposed, lambda row: [0.25, 0.75], parameters={"concurrency": 2, "accepts": ["probabilities"]}
    )
    result = (await outcomes(Backend(contract)))["rows/together"]
    assert (result.outcome, "2 predictions for 1 rows" in result.why) == ("failed", True), result


# -- what all checks use

GOOD: dict[str, Any] = {
    "type": "about:blank", "title": "t", "status": 422, "code": "c", "detail": "d", "request_id": "r", "error": "d",
}  # fmt: skip


def problem(*, kind: str = "application/problem+json", status: int = 422, **changes: Any) -> RawResponse:
    content = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    return RawResponse(status, (("Content-Type", kind),), json.dumps(content).encode(), 0.0)


def test_a_good_problem_is_good():
    require_problem(RawRequest("GET", "/v2/x"), problem(), 422, "c")
    require_problem(RawRequest("GET", "/x"), problem(error=...), 422, "c")


@pytest.mark.parametrize(
    "came",
    [
        problem(kind="application/json"),
        problem(status=400),
        problem(code="other"),
        problem(detail=""),
        problem(detail=7),
        problem(error=...),
        problem(error="other"),
        *(problem(**{name: ...}) for name in ("type", "title", "code", "detail", "request_id")),  # type: ignore[arg-type]
        RawResponse(422, (("Content-Type", "application/problem+json"),), b"[]", 0.0),
        RawResponse(422, (("Content-Type", "application/problem+json"),), b"{", 0.0),
        RawResponse(422, (("Content-Type", "application/problem+json"),), b"", 0.0),
    ],
    ids=str,
)
def test_a_bad_problem_is_told(came: RawResponse):
    with pytest.raises(ContractViolation):
        require_problem(RawRequest("GET", "/v2/x"), came, 422, "c")


def test_server_timing_is_read():
    fields = (("Server-Timing", 'a;dur=1.5, b;desc="x";dur="2"'), ("server-timing", "c"))
    assert require_server_timing(RawResponse(200, fields, b"", 0.0)) == {"a": 1.5, "b": 2.0}


@pytest.mark.parametrize(
    ("got", "wanted", "close"),
    [
        ([1.0], [1], True),
        ([1.0000001], [1], True),
        ([1.1], [1], False),
        ([1e9], [1e9 + 1], True),
        ([True], [1], False),
        ([1, 2], [1], False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        ("a", "a", True),
        ([None], [0], False),
    ],
)
def test_what_is_close(got: Any, wanted: Any, close: bool):
    assert is_close_json(got, wanted, 1e-6) is close
    assert predictions_as_json.is_close(got, wanted, 1e-6) is close, (
        "the library must judge its own samples as the kit does"
    )


# -- the wire


async def answer_of(raw: bytes, *, close: bool = True) -> RawResponse:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        if not close:
            await reader.read()  # until the other side has had enough
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        client = RawClient(f"http://127.0.0.1:{port}", timeout_s=patience(5))
        async with client.connection() as connection:
            client.timeout_s = client.timeout_s if close else 0.2
            return await connection.request(RawRequest("GET", "/"))
    finally:
        server.close()


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\nA: b\r\n\r\n",
            b"hi",
        ),
        (b"HTTP/1.0 200\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_an_answer_is_read_however_it_is_framed(raw: bytes, body: bytes):
    assert (await answer_of(raw)).body == body


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "the connection ended"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "ended after 'hi'"),
        (b"SSH-2.0-x\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 OK\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
    ],
)
async def test_half_an_answer_is_none(raw: bytes, says: str):
    from gateway.verify.raw_http import NoCompleteResponse

    with pytest.raises(NoCompleteResponse, match=says):
        await answer_of(raw)


async def test_silence_is_no_answer():
    from gateway.verify.raw_http import NoCompleteResponse

    with pytest.raises(NoCompleteResponse, match="no whole answer within"):
        await answer_of(b"HTTP/1.1 200", close=False)


async def test_a_bug_in_a_check_is_not_the_backends_fault():
    async def run(_: CheckContext) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_check(Check("a/b", "c", run), CheckContext(RawClient("http://x"), "wine", "1"))


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], {}, "text", 7, [[]], [None]),
        *(
            {"outputs": 1, "predictions": {}},
            {"outputs": [1], "predictions": [[]]},
            {"outputs": [{}], "id": {}},
        ),
        {"outputs": [{"name": 1, "datatype": [], "shape": "x", "data": None}], "model_name": "wine"},
        {"name": "wine", "versions": 1, "inputs": [1], "outputs": {}, "parameters": [], "platform": 1},
        {
            "name": "wine",
            "versions": [None],
            "inputs": {},
            "outputs": [1],
            "parameters": "x",
            "paths": [],
            "info": 1,
        },
        {
            "openapi": "3.1.0",
            "info": {"title": "t", "version": "1"},
            "paths": {"/predict": 1},
            "predictions": [None],
        },
    ],
    ids=str,
)
async def test_no_answer_is_so_strange_that_the_kit_breaks(content: Any):
    backend = twisted(
        lambda request, answer: Response(200, content, [*answer.fields, ("X-Chips-Model", "wine@1")])
    )
    quick = [
        check for check in CHECKS if check.group not in {"size", "http", "load", "logs", "fetch", "life"}
    ]
    report = await check_against(backend, quick)
    assert len(report.results) == len(quick)
    assert {r.check.name for r in report.results if r.outcome == "failed"} >= {
        "about/openapi",
        "malformed/nan",
    }


async def test_a_check_that_does_not_apply_is_skipped_with_its_reason():
    async def run(_: CheckContext) -> None:
        raise CheckSkipped("no reason")

    result = await run_check(Check("a/b", "c", run), CheckContext(RawClient("http://x"), "wine", "1"))
    assert (result.outcome, result.why) == ("skipped", "no reason")
    assert isinstance(result, CheckResult)
