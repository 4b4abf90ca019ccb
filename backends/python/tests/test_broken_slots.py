"""A slot that cannot be restarted is tried again; until then it gets no work, health says it, and nobody waits in vain."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from chips_backend import testing
from chips_backend import workers as module
from chips_backend.batch import Batcher
from chips_backend.failure_cause import ModelFailed
from chips_backend.prediction_pool import Unloaded
from chips_backend.prediction_thread import PredictionThread
from chips_backend.problem_details import Problem
from chips_backend.testing import running
from chips_backend.workers import Workers


class Slot:
    """Predicts 1.0 for each row when its gate is open, dies of the row "die", and restarts when the test allows it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.can_start = asyncio.Event()
        self.can_submit = True
        self.tries = 0
        self.at_work = 0

    async def load(self) -> Any: ...

    def end_running(self) -> bool:
        return True

    def restart(self) -> None:
        self.tries += 1
        if not self.can_start.is_set():
            raise OSError("no process can be started")
        self.can_submit = True

    def stop(self) -> None: ...

    def submit(self, rows: Any, parameters: dict[str, Any]) -> asyncio.Future[Any]:  # noqa: ARG002
        if not self.can_submit:
            raise OSError("no process can be started")
        return asyncio.ensure_future(self._predict(list(rows)))

    async def _predict(self, rows: list[Any]) -> Any:
        assert not self.at_work, "one request at a time"
        self.at_work += 1
        try:
            await self.gate.wait()
        finally:
            self.at_work -= 1
        if ["die"] in rows:
            raise Unloaded("it has died")
        return [1.0] * len(rows)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_PAUSE_S", 0.0)


def make(count: int) -> tuple[Workers, list[Slot]]:
    workers = Workers(count)
    slots = [Slot() for _ in range(count)]
    workers._slots = slots
    workers._free.extend(slots)
    return workers, slots


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(testing._PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def die(workers: Workers) -> None:
    with pytest.raises(ModelFailed):
        await workers.score([["die"]], {}, None)


async def refused(workers: Workers) -> None:
    with pytest.raises(Problem) as refusal:
        await workers.score([["row"]], {}, None)
    assert (refusal.value.status, refusal.value.code) == (503, "not-ready")
    assert refusal.value.headers["Retry-After"] == "1"


async def test_a_slot_that_cannot_be_restarted_is_tried_again(capsys: pytest.CaptureFixture[str]):
    workers, (slot,) = make(1)
    await die(workers)
    assert workers.is_stuck
    await refused(workers)
    await until(lambda: slot.tries > 2)
    assert workers.is_stuck
    slot.can_start.set()
    await until(lambda: not workers.is_stuck)
    assert (await workers.score([["row"]], {}, None)).predictions == [1.0]
    log = capsys.readouterr().out
    assert log.count("could not be restarted; it is tried again") == 1
    assert log.count("works again") == 1


async def test_who_waits_is_refused_when_the_last_slot_breaks():
    workers, (one, two) = make(2)
    one.gate.clear()
    two.gate.clear()
    dying = [asyncio.create_task(workers.score([["die"]], {}, None)) for _ in range(2)]
    await until(lambda: bool(one.at_work and two.at_work))
    waiting = asyncio.create_task(workers.score([["row"]], {}, None))
    one.gate.set()
    await until(lambda: one.tries > 0)
    assert not workers.is_stuck, "the other may still work"
    assert not waiting.done()
    two.gate.set()
    with pytest.raises(Problem, match="could be restarted"):
        await waiting
    await until(lambda: workers.is_stuck)
    found = await asyncio.gather(*dying, return_exceptions=True)
    assert [type(one) for one in found] == [ModelFailed, ModelFailed]


async def test_one_broken_slot_takes_nothing_from_the_others_and_comes_back_once():
    workers, (one, two) = make(2)
    await die(workers)
    assert not workers.is_stuck
    for _ in range(5):
        assert (await workers.score([["row"]], {}, None)).predictions == [1.0]
    for slot in (one, two):
        slot.can_start.set()
    await until(lambda: len(workers._free) == 2)
    assert set(workers._free) == {one, two}
    outcomes = await asyncio.gather(*(workers.score([["row"]], {}, None) for _ in range(20)))
    assert [outcome.predictions for outcome in outcomes] == [[1.0]] * 20
    assert sorted(map(id, workers._free)) == sorted(map(id, (one, two)))


async def test_a_slot_that_takes_no_work_is_set_aside():
    workers, (slot,) = make(1)
    slot.can_submit = False  # its process has ended while it was idle
    await refused(workers)
    assert workers.is_stuck
    slot.can_start.set()
    await until(lambda: not workers.is_stuck)
    assert (await workers.score([["row"]], {}, None)).predictions == [1.0]


@pytest.mark.parametrize("target_s", [0.0, 0.01])
async def test_a_line_is_refused_and_served_again(target_s: float):
    workers, (slot,) = make(1)
    batcher = Batcher(workers, target_s)
    slot.gate.clear()
    dying = asyncio.create_task(batcher.score([["die"]], {}, None))
    await until(lambda: bool(slot.at_work))
    line = [asyncio.create_task(batcher.score([["row"]], {}, None)) for _ in range(5)]
    await until(lambda: len(batcher._line) == 5)
    slot.gate.set()
    found = await asyncio.gather(dying, *line, return_exceptions=True)
    assert all(isinstance(one, (Problem, ModelFailed)) for one in found), found
    slot.can_start.set()
    await until(lambda: not workers.is_stuck)
    assert (await batcher.score([["row"]], {}, None)).predictions == [1.0]
    await batcher.stop()


async def test_a_thread_that_could_not_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    thread = PredictionThread()

    def none_left(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("chips_backend.prediction_thread.threading.Thread.start", none_left)
        with pytest.raises(RuntimeError):
            await thread.submit(int, "7")
    assert await thread.submit(int, "7") == 7


CODE = """
import sys
from pathlib import Path
from chips_backend import predict, prediction_pool
predict.RUNS_IN = "process"
restart = prediction_pool.ProcessSlot.restart

def only_with_the_file(slot):
    if not Path(sys.argv[1]).exists():
        raise OSError("no process can be started")
    restart(slot)

prediction_pool.ProcessSlot.restart = only_with_the_file
from chips_backend.__main__ import run
run()
"""


def test_health_tells_it_and_requests_are_refused_until_a_process_starts(model, tmp_path):
    allowed = tmp_path / "allowed"
    environ = {"CHIPS_ARTIFACT": str(model), "CHIPS_CONCURRENCY": "1"}
    with running(environ, command=(sys.executable, "-c", CODE, str(allowed))) as backend:
        assert backend.post("/predict", {"instances": [[-3.0, 0]]}).status == 500
        for answer in (
            backend.get("/v2/health/ready"),
            backend.post("/predict", {"instances": [[1.0, 2]]}),
        ):
            assert (answer.status, answer.json["code"]) == (503, "not-ready")
            assert "could" in answer.json["detail"]
        assert backend.get("/v2/health/live").status == 200
        allowed.touch()
        give_up_at = time.monotonic() + testing._PATIENCE_S
        while backend.get("/v2/health/ready").status != 200:
            assert time.monotonic() < give_up_at
            time.sleep(0.005)
        assert backend.post("/predict", {"instances": [[1.0, 2]]}).json["predictions"] == [3.0]
