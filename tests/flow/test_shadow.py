# Long: one fleet with a shadow, told from its callers' side and from the candidate's.
"""A candidate in the shadow of the stable version: callers notice nothing, and what differs is found."""

import asyncio
import gzip
import json
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.model import Backend, Model, Policy
from gateway.core.model_updates import to_document
from gateway.core.rollout_document import backend_fingerprint
from gateway.core.shadow_document import PureBy, Shadow, ShadowBudget, utc_text
from gateway.registry.base import SHADOWS, Put
from gateway.shadow.difference_counts import ShadowReport
from gateway.shadow.run_shadows import FIGURES
from gateway.shadow.shadow_verdict import combine_reports
from tests.flow.scene import Scene
from tests.flow.scripted import Message, Peer, ScriptedBackend
from tests.patience import patience


async def predict(request: Message, peer: Peer) -> None:
    """As a good model: the sum of each row."""
    rows = json.loads(request.body)["instances"]
    await answer(peer, [sum(row) for row in rows])


async def answer(peer: Peer, predictions: list[Any], status: int = 200) -> None:
    body = json.dumps({"predictions": predictions, "model": "wine", "version": "?"}).encode()
    await peer.answer(status, body, [("Content-Type", "application/json")])


def rows(number: int) -> bytes:
    return json.dumps({"instances": [[number, 0.5]]}).encode()


NO_NOISE = 0.1  # the least that may be asked for; with `drawn` it is none


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sampling by chance: 100 percent are all requests, and NO_NOISE is none."""
    monkeypatch.setattr("gateway.shadow.sender.random_share", lambda: 0.5)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests is no fault of the process that compares: what it had found would be lost."""
    for name, usual_s in (("_ANSWER_S", 10.0), ("_FIRST_ANSWER_S", 60.0)):
        monkeypatch.setattr(f"gateway.shadow.comparer_process.{name}", patience(usual_s))


class Stage:
    """The model wine with version 1, which has the traffic, and version 2, and a shadow of it."""

    def __init__(
        self, scene: Scene, stable: ScriptedBackend, candidate: ScriptedBackend, model: Model
    ) -> None:
        self.scene = scene
        self.stable = stable
        self.candidate = candidate
        self.model = model

    async def shadow(self, **changes: Any) -> Shadow:
        versions = {backend.version: backend_fingerprint(backend) for backend in self.model.backends}
        fields: dict[str, Any] = {
            "model": "wine",
            "id": f"shadow-{len(changes)}-{time.monotonic_ns()}",
            "candidate": "2",
            "stable": "1",
            "versions": versions,
            "percent": 100.0,
            "noise_percent": 100.0,
            "until": utc_text(time.time() + 3600),
            "budget": ShadowBudget(requests_per_s=10_000, waiting=10_000),
            "report_s": 0.05,
        }
        made = Shadow(**{**fields, **changes})
        await self.put(made)
        async with asyncio.timeout(patience(20)):
            while self.scene.gateway._forward._observe is None:  # it begins with the process that compares
                await asyncio.sleep(0.005)
        return made

    async def put(self, made: Shadow) -> None:
        old = await self.scene.registry.read(SHADOWS, "wine")
        expected = old.revision if old is not None else 0
        generation = await self.scene.registry.write(
            Put(kind=SHADOWS, name="wine", body=to_document(made), expected=expected), author="test"
        )
        assert await self.scene.gateway.mirror.wait_for_generation(generation, timeout_s=patience(5))

    async def report(self, made: Shadow, until: Callable[[ShadowReport], bool]) -> ShadowReport:
        """What is reported, once `until` holds."""
        async with asyncio.timeout(patience(20)):
            while True:
                documents = await self.scene.registry.list_ephemeral(FIGURES)
                reports = [msgspec.convert(one.body, ShadowReport, str_keys=True) for one in documents]
                total = combine_reports(reports, made.id)
                if until(total):
                    return total
                await asyncio.sleep(0.02)


async def stage(
    scene: Scene,
    candidate: Callable[[Message, Peer], Awaitable[None]] = predict,
    stable: Callable[[Message, Peer], Awaitable[None]] = predict,
    **backend: Any,
) -> Stage:
    one = await scene.model("one", stable)
    two = await scene.model("two", candidate)
    model = Model(
        name="wine",
        policy=Policy(pure=True),
        backends=(Backend(version="1", url=one.url, **backend), Backend(version="2", url=two.url)),
        traffic={"1": 100, "2": 0},
    )
    await scene.put_model(model)
    return Stage(scene, one, two, model)


def compared(count: int) -> Callable[[ShadowReport], bool]:
    return lambda report: report.findings.pairs.compared >= count


async def test_an_answer_in_a_coding_that_is_not_known_is_left_out_and_counted(scene: Scene):
    """Two bodies in Brotli may differ though the same is in them, and a gzip body differs from any of them."""

    async def squeezed(request: Message, peer: Peer) -> None:
        coding = "br" if request.body == rows(0) else "gzip"
        body = gzip.compress(json.dumps({"predictions": [1]}).encode())
        await peer.answer(200, body, [("Content-Type", "application/json"), ("Content-Encoding", coding)])

    it = await stage(scene, candidate=squeezed)
    made = await it.shadow()
    for number in (0, 1):
        await scene.call(body=rows(number))
    report = await it.report(made, lambda found: bool(found.dropped) and found.findings.pairs.compared > 0)
    assert (report.dropped, report.findings.pairs.compared) == ({"unknown coding": 1}, 1)
    assert (report.findings.candidate.requests, report.incomparable) == (1, 1)


async def test_a_failure_counts_in_whatever_coding_its_body_is(scene: Scene):
    async def fails(request: Message, peer: Peer) -> None:
        await peer.answer(500, b"?", [("Content-Encoding", "br" if request.body == rows(0) else "identity")])

    it = await stage(scene, candidate=fails)
    made = await it.shadow()
    for number in (0, 1):
        await scene.call(body=rows(number))
    report = await it.report(made, lambda found: found.findings.candidate.requests + found.incomparable == 2)
    assert (report.findings.candidate.failed, report.incomparable) == (2, 0)


async def test_the_candidate_sees_what_the_stable_version_saw_and_agrees(scene: Scene):
    it = await stage(scene)
    made = await it.shadow()
    for number in range(5):
        got = await scene.call(body=rows(number), fields=[("X-Order", str(number))])
        assert (got.status, got.json()["predictions"]) == (200, [number + 0.5])
        assert got.get("X-Chips-Model") == "wine@1"
    report = await it.report(made, compared(5))
    assert (report.sampled, report.dropped) == (5, {})
    assert report.findings.pairs.agreed == 5
    assert (report.findings.noise.compared, report.findings.noise.agreed) == (5, 5)
    assert len(it.stable.seen) == 10
    first, shown = it.stable.seen[0], it.candidate.seen[0]
    assert (shown.method, shown.target, shown.body) == (first.method, first.target, first.body)
    assert shown.get("X-Chips-Shadow") == "1"
    assert first.get("X-Chips-Shadow") is None
    assert shown.get("X-Order") == "0"
    assert shown.get("X-Request-Id") == first.get("X-Request-Id")


async def test_what_differs_is_named_by_request_and_place_and_never_by_value(scene: Scene):
    async def off(request: Message, peer: Peer) -> None:
        (row,) = json.loads(request.body)["instances"]
        await answer(peer, [sum(row) + row[0] * 1e-3])

    it = await stage(scene, off)
    made = await it.shadow()
    for number in range(4):
        await scene.call(body=rows(number), fields=[("X-Request-Id", f"order-{number}")])
    report = await it.report(made, compared(4))
    assert report.findings.pairs.agreed == 1  # nothing is off for 0
    assert report.findings.noise.agreed == 4
    assert [one.request_id for one in report.findings.worst] == ["order-3", "order-2", "order-1"]
    (difference,) = report.findings.worst[0].differences
    assert (difference.path, difference.what) == ("predictions[0]", "number")
    assert difference.amount == pytest.approx(3e-3)
    figures = report.findings.pairs.outputs["predictions"]
    assert figures.largest == pytest.approx(3e-3)
    assert figures.sum_difference / figures.numbers == pytest.approx(1.5e-3)


async def test_a_tolerance_counts_by_output(scene: Scene):
    async def off(request: Message, peer: Peer) -> None:
        await answer(peer, [sum(row) + 0.01 for row in json.loads(request.body)["instances"]])

    it = await stage(scene, off)
    made = await it.shadow(tolerances={"predictions": 0.1})
    await scene.call(body=rows(1))
    report = await it.report(made, compared(1))
    assert report.findings.pairs.agreed == 1


async def test_a_noisy_model_differs_from_itself_as_much(scene: Scene):
    counts = {"1": 0, "2": 0}

    def noisy(version: str) -> Callable[[Message, Peer], Awaitable[None]]:
        async def script(request: Message, peer: Peer) -> None:
            counts[version] += 1
            await answer(peer, [counts[version]])

        return script

    it = await stage(scene, noisy("2"), noisy("1"))
    made = await it.shadow()
    for number in range(3):
        await scene.call(body=rows(number))
    report = await it.report(made, compared(3))
    assert report.findings.noise.agreed == 0
    assert report.findings.noise.compared == 3


async def test_a_candidate_that_fails_or_is_not_there_harms_nobody(scene: Scene):
    async def broken(request: Message, peer: Peer) -> None:
        peer.abort()

    it = await stage(scene, broken)
    made = await it.shadow()
    for number in range(3):
        assert (await scene.call(body=rows(number))).status == 200
    report = await it.report(made, lambda found: found.findings.candidate.requests == 3)
    assert report.findings.candidate.failed == 3
    assert report.findings.stable.failed == 0
    assert report.findings.pairs.compared == 0


async def test_a_caller_does_not_wait_for_a_candidate_that_never_answers(scene: Scene):
    released = asyncio.Event()

    async def stuck(request: Message, peer: Peer) -> None:
        await released.wait()
        await predict(request, peer)

    it = await stage(scene, stuck)
    made = await it.shadow(
        budget=ShadowBudget(concurrency=1, waiting=2, requests_per_s=10_000), noise_percent=NO_NOISE
    )
    for number in range(8):
        assert (await scene.call(body=rows(number))).status == 200
    await it.report(made, lambda found: found.dropped.get("busy", 0) == 8 - 1 - 2)
    released.set()
    report = await it.report(made, compared(3))
    assert (report.sampled, report.findings.pairs.agreed) == (8, 3)


async def test_what_does_not_fit_the_budget_is_left_out_and_counted(scene: Scene):
    it = await stage(scene)
    made = await it.shadow(budget=ShadowBudget(body_bytes=70, requests_per_s=10_000), noise_percent=NO_NOISE)
    large = json.dumps({"instances": [[number] for number in range(200)]}).encode()
    assert (await scene.call(body=large)).status == 200
    assert (await scene.call(body=json.dumps({"instances": [[0.5] * 30_000]}).encode())).status == 200
    await scene.call(body=rows(1))
    report = await it.report(made, compared(1))
    assert report.dropped == {"large answer": 1, "large request": 1}
    limited = await it.shadow(budget=ShadowBudget(requests_per_s=0.01))
    for number in range(3):
        await scene.call(body=rows(number))
    report = await it.report(limited, lambda found: found.sampled == 3 and compared(1)(found))
    assert report.dropped == {"rate": 2}


async def test_an_answer_of_the_candidate_that_is_too_large_is_left_out_and_no_failure(scene: Scene):
    async def wordy(request: Message, peer: Peer) -> None:
        await answer(peer, list(range(200)))

    it = await stage(scene, wordy)
    made = await it.shadow(budget=ShadowBudget(body_bytes=100, requests_per_s=10_000))
    assert (await scene.call(body=rows(1))).status == 200
    report = await it.report(made, lambda found: found.dropped == {"large answer": 1})
    assert report.incomparable == 1
    assert report.findings.candidate.failed == 0
    assert report.findings.noise.compared == 0


async def test_answers_on_their_way_count_in_the_bytes_that_are_held(scene: Scene):
    whole = b'{"predictions": [1]}' + b" " * 10_000
    rest = asyncio.Event()

    async def slow(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole[:9000])
        await rest.wait()
        await peer.write(whole[9000:])

    it = await stage(scene, predict, slow)
    made = await it.shadow(
        budget=ShadowBudget(buffer_bytes=25_000, requests_per_s=10_000), noise_percent=NO_NOISE
    )
    calls = [asyncio.create_task(scene.call(body=rows(1))) for _ in range(5)]
    sender = scene.gateway._shadows._running["wine"].sender

    def left_out() -> int:
        return sender.dropped.get("busy", 0) + sum(one.recording.crowded_out for one in sender._recorded)

    async with asyncio.timeout(patience(10)):
        while left_out() < 3:
            await asyncio.sleep(0.005)
    assert sender._held.now <= 25_000
    rest.set()
    for call in calls:
        assert (await call).body == whole, "callers have their answers whole"
    await it.report(
        made, lambda found: found.findings.candidate.requests == 2 and found.dropped == {"busy": 3}
    )
    await sender.wait_idle()
    assert sender._held.now == 0


async def test_only_what_was_assigned_to_the_stable_version_and_scores_is_shadowed(scene: Scene):
    it = await stage(scene)
    made = await it.shadow()
    tester = await scene.make_key("wine", verbs=("score", "metadata", "pin"))
    await scene.call("POST", "/v2/models/wine/versions/1/infer", body=rows(1))
    await scene.call(key=tester, fields=[("X-Chips-Version", "1")], body=rows(1))
    await scene.call(key=tester, fields=[("X-Chips-Version", "2")], body=rows(1))
    await scene.call("POST", "/wine/other", body=rows(1))
    await scene.call("GET", "/wine/openapi.json", body=None)
    await scene.call("POST", "/v2/models/wine/infer", body=rows(2))
    report = await it.report(made, compared(1))
    assert report.sampled == 1
    assert it.candidate.seen[-1].target == "/v2/models/wine/infer"


async def test_refusals_of_callers_are_compared_by_their_code(scene: Scene):
    def refusing(code: str) -> Callable[[Message, Peer], Awaitable[None]]:
        async def script(request: Message, peer: Peer) -> None:
            await peer.answer(422, json.dumps({"code": code, "detail": "words"}).encode())

        return script

    it = await stage(scene, refusing("invalid-instances"), refusing("invalid-instances"))
    made = await it.shadow()
    assert (await scene.call(body=rows(1))).status == 422
    assert (await it.report(made, compared(1))).findings.pairs.agreed == 1
    it.candidate.script = predict
    await scene.call(body=rows(1))
    report = await it.report(made, compared(2))
    assert report.findings.worst[0].differences[0].what == "status"


async def test_it_ends_when_it_is_stopped_and_when_a_version_is_replaced(scene: Scene):
    it = await stage(scene)
    made = await it.shadow()
    await scene.call(body=rows(1))
    await it.report(made, compared(1))
    await it.put(msgspec.structs.replace(made, stopped=utc_text(time.time())))
    await scene.call(body=rows(2))
    again = await it.shadow()
    await scene.call(body=rows(3))
    await it.report(again, compared(1))
    backends = (
        it.model.backends[0],
        msgspec.structs.replace(it.model.backends[1], artifact_digest="sha256:1"),
    )
    await scene.put_model(msgspec.structs.replace(it.model, backends=backends))
    await scene.call(body=rows(4))
    bodies = [json.loads(seen.body)["instances"][0][0] for seen in it.candidate.seen]
    assert bodies == [1, 3]


@pytest.mark.parametrize(("pure_by", "pure"), [("policy", False), ("policy", None), ("artifacts", False)])
async def test_it_ends_when_nobody_says_any_more_that_predicting_changes_nothing(
    scene: Scene, pure_by: PureBy, pure: bool | None
):
    it = await stage(scene)
    made = await it.shadow(pure_by=pure_by)
    await scene.call(body=rows(1))
    await it.report(made, compared(1))
    policy = msgspec.structs.replace(it.model.policy, pure=pure)
    await scene.put_model(msgspec.structs.replace(it.model, policy=policy))
    await scene.call(body=rows(2))
    assert [json.loads(seen.body)["instances"][0][0] for seen in it.candidate.seen] == [1]
    assert scene.gateway._shadows._running == {}


async def test_artifacts_that_declare_it_need_no_policy(scene: Scene):
    it = await stage(scene)
    await scene.put_model(msgspec.structs.replace(it.model, policy=Policy()))
    made = await it.shadow(pure_by="artifacts")
    await scene.call(body=rows(1))
    await it.report(made, compared(1))


async def test_what_waits_when_it_ends_is_not_sent(scene: Scene):
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(request: Message, peer: Peer) -> None:
        asked.set()
        await go_on.wait()
        await predict(request, peer)

    it = await stage(scene, slow)
    made = await it.shadow(budget=ShadowBudget(concurrency=1, requests_per_s=10_000), noise_percent=NO_NOISE)
    await scene.call(body=rows(1))
    await asked.wait()
    await scene.call(body=rows(2))
    sender = scene.gateway._shadows._running["wine"].sender
    async with asyncio.timeout(patience(10)):
        while not sender._waiting:
            await asyncio.sleep(0)
    await scene.put_model(msgspec.structs.replace(it.model, policy=Policy(pure=False)))
    go_on.set()
    report = await it.report(made, lambda report: "ended" in report.dropped)
    assert report.dropped == {"ended": 1}
    await sender.wait_idle()
    assert len(it.candidate.seen) == 1


async def test_it_ends_by_itself(scene: Scene):
    it = await stage(scene)
    made = await it.shadow()
    await scene.call(body=rows(1))
    await it.report(made, compared(1))
    sender = scene.gateway._shadows._running["wine"].sender
    assert 3000 < sender._ends - time.monotonic() <= 3600
    sender._ends = time.monotonic()  # its time is over
    await scene.call(body=rows(2))
    async with asyncio.timeout(patience(10)):
        while scene.gateway._forward._observe is not None:
            await asyncio.sleep(0.01)
    await scene.call(body=rows(3))
    assert len(it.candidate.seen) == 1
    report = await it.report(made, compared(1))
    assert (report.sampled, report.findings.pairs.compared) == (1, 1), "what was found stays"


async def test_a_fault_in_the_shadow_is_no_callers(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    it = await stage(scene)
    await it.shadow()
    monkeypatch.setattr(scene.gateway._shadows._running["wine"].sender, "observe", broken)
    got = await scene.call(body=rows(1))
    assert (got.status, got.json()["predictions"]) == (200, [1.5])


async def test_the_stable_version_gets_no_second_request_while_it_is_full(scene: Scene):
    it = await stage(scene, concurrency=1)
    held = asyncio.Event()

    async def slow(request: Message, peer: Peer) -> None:
        if json.loads(request.body)["instances"][0][0] == 2:
            await held.wait()
        await predict(request, peer)

    gate = asyncio.Event()

    async def gated(request: Message, peer: Peer) -> None:
        await gate.wait()
        await predict(request, peer)

    it.stable.script, it.candidate.script = slow, gated
    made = await it.shadow()
    await scene.call(body=rows(1))
    second = asyncio.create_task(scene.call(body=rows(2)))
    async with asyncio.timeout(patience(5)):
        while len(it.stable.seen) < 2:
            await asyncio.sleep(0.005)
    gate.set()
    report = await it.report(made, compared(1))
    assert report.dropped == {"stable version busy": 1}
    held.set()
    assert (await second).status == 200


async def test_a_candidate_that_is_full_of_its_own_callers_gets_no_copy(scene: Scene):
    it = await stage(scene)
    one, two = it.model.backends
    it.model = msgspec.structs.replace(it.model, backends=(one, msgspec.structs.replace(two, concurrency=1)))
    await scene.put_model(it.model)
    held = asyncio.Event()

    async def slow(request: Message, peer: Peer) -> None:
        await held.wait()
        await predict(request, peer)

    it.candidate.script = slow
    made = await it.shadow()
    tester = await scene.make_key("wine", verbs=("score", "pin"))
    own = asyncio.create_task(scene.call(key=tester, fields=[("X-Chips-Version", "2")], body=rows(1)))
    async with asyncio.timeout(patience(5)):
        while not it.candidate.seen:
            await asyncio.sleep(0.005)
    assert (await scene.call(body=rows(2))).status == 200
    await it.report(made, lambda found: found.dropped == {"candidate busy": 1})
    held.set()
    assert (await own).status == 200
    await scene.call(body=rows(3))
    await it.report(made, compared(1))
    assert [json.loads(seen.body)["instances"][0][0] for seen in it.candidate.seen] == [1, 3]


async def test_the_process_that_compares_may_die_and_is_begun_again(scene: Scene):
    it = await stage(scene)
    made = await it.shadow()
    await scene.call(body=rows(1))
    await it.report(made, compared(1))
    comparer = scene.gateway._shadows._comparer
    assert comparer._process is not None
    first = comparer.pid
    comparer._process.kill()
    async with asyncio.timeout(patience(20)):
        while comparer.pid == first or scene.gateway._forward._observe is None:
            await asyncio.sleep(0.02)
    await scene.call(body=rows(2))
    report = await it.report(made, compared(2))
    assert report.findings.pairs.agreed == 2


async def test_pairs_that_die_with_the_process_that_compares_are_counted_as_left_out(scene: Scene):
    it = await stage(scene)
    made = await it.shadow()
    await scene.call(body=rows(1))
    await it.report(made, compared(1))
    shadows = scene.gateway._shadows
    process, sender = shadows._comparer._process, shadows._running["wine"].sender
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    for number in (2, 3):
        await scene.call(body=rows(number))
    async with asyncio.timeout(patience(20)):
        while sender._compared < 3:
            await asyncio.sleep(0.005)
    process.kill()
    report = await it.report(made, lambda found: bool(found.dropped))
    assert report.dropped == {"comparison lost": 2}
    assert (report.sampled, report.findings.pairs.compared) == (3, 1)
    await scene.call(body=rows(4))
    report = await it.report(made, compared(2))
    assert (report.sampled, report.dropped) == (4, {"comparison lost": 2})


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="this is not Linux")
async def test_where_memory_is_short_the_process_that_compares_goes_first(scene: Scene):
    it = await stage(scene)
    made = await it.shadow()
    await scene.call(body=rows(1))
    await it.report(made, compared(1))  # so it has begun
    pid = scene.gateway._shadows._comparer.pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"


async def test_without_a_shadow_there_is_no_process(scene: Scene):
    it = await stage(scene)
    await scene.call(body=rows(1))
    assert scene.gateway._shadows._comparer.pid is None
    assert not it.candidate.seen


async def test_a_shadow_that_ends_while_another_one_is_closed_is_closed_too(scene: Scene):
    shadows, closed = scene.gateway._shadows, []

    class Ended:
        """As much of a shadow as closing one needs."""

        def __init__(self, name: str, meanwhile: "Ended | None" = None) -> None:
            self.name, self.meanwhile = name, meanwhile
            self.sender, self.shadow = self, self
            self.id = name

        async def wait_idle(self) -> None:
            if self.meanwhile is not None:
                shadows._ended.append(self.meanwhile)  # type: ignore[arg-type]

        def cancel(self) -> None:
            closed.append(self.name)

    async def report(_: object) -> None: ...

    shadows._report = report  # type: ignore[method-assign, assignment]
    shadows._ended.append(Ended("wine", Ended("beer")))  # type: ignore[arg-type]
    await shadows._close_ended()
    assert closed == ["wine", "beer"]
    assert shadows._ended == []
