# Long: one scene of callers who wait, and all that may happen to them.
"""Micro-batching: what waits together is predicted together, and everybody gets their own."""

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chips_backend import batch
from chips_backend.batch import Batcher, Cost
from chips_backend.column_block import Block
from chips_backend.failure_cause import ModelFailed
from chips_backend.prediction_pool import Failed
from chips_backend.problem_details import Problem
from chips_backend.workers import Workers


class Slot:
    """Predicts when the test says so; sees what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> Any: ...

    def end_running(self) -> bool:
        return False

    def restart(self) -> None: ...

    def stop(self) -> None: ...

    def submit(self, rows: Any, parameters: dict[str, Any]) -> asyncio.Future[Any]:
        self.calls.append((list(rows), parameters))
        return asyncio.ensure_future(self._predict(list(rows), parameters))

    async def _predict(self, rows: list[Any], parameters: dict[str, Any]) -> Any:
        await self.gate.wait()
        if any(row[0] == "bad" for row in rows):
            return Failed("ValueError", "a bad row", "")
        return [(row[0], parameters.get("as")) for row in rows]


class Scene:
    def __init__(self, target_s: float = 1.0) -> None:
        self.workers = Workers(1)
        self.slot = Slot()
        self.workers._slots = [self.slot]
        self.workers._free.append(self.slot)
        self.batcher = Batcher(self.workers, target_s)
        for rows in (1, 2, 3, 4) * 5:
            self.batcher._cost.learn(rows, 0.010 + 0.001 * rows)

    def ask(self, *values: Any, deadline: float | None = None, **parameters: Any) -> asyncio.Task[Any]:
        rows = [[value] for value in values]
        return asyncio.create_task(self.batcher.score(rows, parameters, deadline))

    async def begun(self, count: int) -> None:
        while len(self.slot.calls) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.fixture
async def scene():
    made = Scene()
    yield made
    made.slot.gate.set()
    await made.batcher.stop()


@pytest.fixture
def frozen(monkeypatch) -> SimpleNamespace:
    """The batcher's clock, which stands still."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(batch, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_waits_together_is_predicted_together(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    others = [scene.ask(number, number + 100) for number in range(2, 12)]
    await settled()
    scene.slot.gate.set()
    assert (await first).predictions == [(1, None)]
    for number, other in enumerate(others, start=2):
        assert (await other).predictions == [(number, None), (number + 100, None)]
    assert [len(rows) for rows, _ in scene.slot.calls] == [1, 20]


async def test_without_a_target_nobody_waits_for_company_and_who_waits_anyway_shares_a_call(monkeypatch):
    scene = Scene(0.0)
    monkeypatch.setattr(scene.batcher._cost, "learn", lambda *_: None)
    try:
        assert (await scene.ask(1)).predictions == [(1, None)]
        scene.slot.gate.clear()
        first = scene.ask(2)
        await scene.begun(2)
        others = [scene.ask(number) for number in range(3, 9)]
        await settled()
        scene.slot.gate.set()
        assert (await first).predictions == [(2, None)]
        assert [(await other).predictions for other in others] == [[(n, None)] for n in range(3, 9)]
        # A call takes 10 ms and a row 1 ms more: each that joins saves more than the others lose.
        assert [len(rows) for rows, _ in scene.slot.calls] == [1, 1, 6]
    finally:
        await scene.batcher.stop()


async def test_a_request_joins_a_call_as_long_as_it_saves_more_than_the_others_lose(monkeypatch):
    scene = Scene(0.0)
    monkeypatch.setattr(scene.batcher._cost, "learn", lambda *_: None)
    try:
        scene.slot.gate.clear()
        asked = [scene.ask(0)]
        await scene.begun(1)
        # 10 ms a call and 10 ms for these rows. The third of four would save 20 ms, its own call and the fourth one's, and cost the
        # first two 20; the fourth would save 10 and cost the first three 30.
        asked += [scene.ask(*range(10)) for _ in range(4)]
        await settled()
        scene.slot.gate.set()
        shared = [(await each).shared for each in asked]
        assert [len(rows) for rows, _ in scene.slot.calls] == [1, 30, 10]
        assert shared == [1, 3, 3, 3, 1]
    finally:
        await scene.batcher.stop()


async def test_nobody_joins_a_call_who_would_make_it_miss_a_deadline(monkeypatch):
    scene = Scene(0.0)
    cost = 1e9  # seconds, so that no test machine is too slow for it
    monkeypatch.setattr(Cost, "line", (cost, cost))
    monkeypatch.setattr(Cost, "learn", lambda *_: None)
    try:
        scene.slot.gate.clear()
        later = asyncio.get_running_loop().time()
        asked = [scene.ask(0)]
        await scene.begun(1)
        asked += [scene.ask(number, deadline=later + 3.5 * cost) for number in range(1, 6)]
        await settled()
        scene.slot.gate.set()
        await asyncio.gather(*asked)
        assert [len(rows) for rows, _ in scene.slot.calls] == [1, 2, 2, 1]
    finally:
        await scene.batcher.stop()


async def test_rows_that_cost_far_more_than_a_call_are_not_joined(monkeypatch):
    scene = Scene(0.0)
    monkeypatch.setattr(scene.batcher._cost, "learn", lambda *_: None)
    try:
        scene.slot.gate.clear()
        asked = [scene.ask(0)]
        await scene.begun(1)
        asked += [scene.ask(*range(100)) for _ in range(4)]
        await settled()
        scene.slot.gate.set()
        await asyncio.gather(*asked)
        assert [len(rows) for rows, _ in scene.slot.calls] == [1, 100, 100, 100, 100]
    finally:
        await scene.batcher.stop()


async def test_an_error_reaches_only_whose_rows_made_it(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    asked = {number: scene.ask("bad" if number % 3 == 0 else number) for number in range(2, 10)}
    await settled()
    scene.slot.gate.set()
    await first
    for number, task in asked.items():
        if number % 3 == 0:
            with pytest.raises(ModelFailed, match="a bad row"):
                await task
        else:
            assert (await task).predictions == [(number, None)]


async def test_other_parameters_are_another_call(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    asked = [scene.ask(number, **({"as": number % 2} if number % 2 else {})) for number in range(6)]
    await settled()
    scene.slot.gate.set()
    await first
    assert [(await task).predictions for task in asked] == [[(n, n % 2 if n % 2 else None)] for n in range(6)]
    assert [[row[0] for row in rows] for rows, _ in scene.slot.calls] == [[1], [0, 2, 4], [1, 3, 5]]


async def test_one_true_and_one_point_zero_are_not_one_parameter(scene):
    """Python holds them equal."""
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    given = [1, True, 1.0, [0, False], [False, 0]]
    asked = [scene.ask(number, **{"as": value}) for number, value in enumerate(given)]
    await settled()
    scene.slot.gate.set()
    await asyncio.gather(first, *asked)
    assert [repr(parameters["as"]) for _, parameters in scene.slot.calls[1:]] == [repr(one) for one in given]


async def test_parameters_too_deep_to_be_compared_hold_nobody_up(scene):
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    asked = [scene.ask(2, **{"as": deep}), scene.ask(3, **{"as": deep}), scene.ask(4)]
    await settled()
    scene.slot.gate.set()
    await asyncio.gather(first, *asked)
    assert [[row[0] for row in rows] for rows, _ in scene.slot.calls[1:]] == [[2], [3], [4]]
    while deep:  # a level at a time: its end would be as deep
        deep = deep.pop()


async def test_one_bad_request_among_many_costs_few_calls(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    asked = [scene.ask("bad" if number == 5 else number) for number in range(16)]
    await settled()
    scene.slot.gate.set()
    answers = await asyncio.gather(first, *asked, return_exceptions=True)
    assert isinstance(answers[6], ModelFailed)
    assert [answer.predictions[0][0] for answer in answers[1:] if not isinstance(answer, BaseException)] == [
        number for number in range(16) if number != 5
    ]
    assert len(scene.slot.calls) < 16
    assert scene.batcher._apart == 0


async def test_those_who_are_predicted_apart_count_as_waiting(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    scene.batcher._apart = 10_000
    with pytest.raises(Problem, match="queue is full"):
        await scene.ask(2)
    scene.batcher._apart = 0
    scene.slot.gate.set()
    await first


async def test_rows_that_cannot_be_joined_give_the_slot_back(scene, monkeypatch):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    asked = [scene.ask(2), scene.ask(3)]
    await settled()

    def no_room(_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(batch, "joined", no_room)
    scene.slot.gate.set()
    answers = await asyncio.gather(first, *asked, return_exceptions=True)
    assert [type(answer) for answer in answers[1:]] == [MemoryError, MemoryError]
    monkeypatch.undo()
    assert (await scene.ask(4)).predictions == [(4, None)]


async def test_who_has_a_deadline_shares_no_call_with_who_has_none(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    deadline = asyncio.get_running_loop().time() + 1000
    asked = [scene.ask(number, deadline=deadline if number % 2 else None) for number in range(4)]
    await settled()
    scene.slot.gate.set()
    await asyncio.gather(first, *asked)
    assert [[row[0] for row in rows] for rows, _ in scene.slot.calls] == [[1], [0, 2], [1, 3]]


async def test_rows_of_another_form_are_another_call(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    lists, matrix = [[1.0, 2.0]], Block(matrix=np.array([[3.0, 4.0]]))
    whole, missing = (Block([np.array([5.0]), column]) for column in (np.array([6]), [None]))
    two, three = (Block([np.zeros((1, width))]) for width in (2, 3))
    forms = [lists, matrix, whole, missing, two, three]
    asked = [asyncio.create_task(scene.batcher.score(rows, {}, None)) for _ in range(2) for rows in forms]
    await settled()
    scene.slot.gate.set()
    await asyncio.gather(first, *asked)
    assert [repr(rows) for rows, _ in scene.slot.calls[1:]] == [repr([list(rows[0])] * 2) for rows in forms]


async def test_who_leaves_is_not_predicted(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    asked = [scene.ask(number) for number in range(2, 6)]
    await settled()
    asked[1].cancel()
    await settled()
    scene.slot.gate.set()
    await first
    for task in (asked[0], *asked[2:]):
        await task
    assert [row[0] for row in scene.slot.calls[1][0]] == [2, 4, 5]


async def test_who_leaves_gives_the_place_to_another_at_once(scene):
    scene.slot.gate.clear()
    scene.batcher._cost = Cost()  # nothing is known, so that sixteen may wait
    asked = [scene.ask(0)]
    await scene.begun(1)
    asked += [scene.ask(number) for number in range(1, 17)]
    await settled()
    late = scene.ask(98)
    with pytest.raises(Problem, match="queue is full"):
        await late
    asked.pop(9).cancel()
    await settled()
    asked.append(scene.ask(99))
    await settled()
    assert not asked[-1].done()
    scene.slot.gate.set()
    assert [(await task).predictions[0][0] for task in asked] == [*range(9), *range(10, 17), 99]


async def test_a_deadline_that_passes_in_the_line(scene):
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    late = scene.ask(2, deadline=asyncio.get_running_loop().time() + 0.02)
    with pytest.raises(Problem) as caught:
        await late
    assert caught.value.code == "deadline-exceeded"
    scene.slot.gate.set()
    await first
    await settled()
    assert len(scene.slot.calls) == 1


async def test_while_nothing_is_known_of_the_cost_sixteen_may_wait(scene):
    scene.slot.gate.clear()
    scene.batcher._cost = Cost()
    asked = [scene.ask(0)]
    await scene.begun(1)
    asked += [scene.ask(number) for number in range(16)]
    await settled()
    await settled()
    assert not any(task.done() for task in asked)
    with pytest.raises(Problem) as caught:
        await scene.ask(99)
    assert (caught.value.code, caught.value.headers) == ("overloaded", {"Retry-After": "1"})
    scene.slot.gate.set()
    assert len(await asyncio.gather(*asked)) == 17


@pytest.mark.parametrize(
    ("per_row_s", "most"),
    [
        (0.001, 256),  # however fast they are
        (0.0201, 50),  # a second of predictions
        (10.0, 16),  # however slow they are
    ],
)
@pytest.mark.usefixtures("frozen")
async def test_as_many_may_wait_as_are_predicted_within_a_second(scene, per_row_s, most):
    scene.batcher._cost = Cost()
    for rows in (1, 2):
        scene.batcher._cost.learn(rows, per_row_s * rows)
    scene.slot.gate.clear()
    asked = [scene.ask(0)]
    await scene.begun(1)
    asked += [scene.ask(number) for number in range(1, 300)]
    await settled()
    refused = [task for task in asked if task.done()]
    assert len(asked) - len(refused) == 1 + most
    for task in refused:
        assert isinstance(problem := task.exception(), Problem)
        assert (problem.code, problem.headers) == ("overloaded", {"Retry-After": "1"})
    for task in asked:
        task.cancel()


async def test_behind_a_call_that_does_not_end_no_more_wait_than_in_any_case(scene, frozen):
    scene.slot.gate.clear()
    asked = [scene.ask(0)]
    await scene.begun(1)
    asked += [scene.ask(number) for number in range(1, 31)]
    await settled()
    assert not any(task.done() for task in asked)
    frozen.now += 1.0
    with pytest.raises(Problem, match="queue is full"):
        await scene.ask(99)
    scene.slot.gate.set()
    assert len(await asyncio.gather(*asked)) == 31


async def test_a_request_is_never_split_and_a_batch_never_too_large(scene):
    most = scene.batcher._cost.rows_within(0.8)
    scene.batcher._cost.learn = lambda *_: None
    scene.slot.gate.clear()
    first = scene.ask(1)
    await scene.begun(1)
    asked = [scene.ask(*range(400)) for _ in range(5)]
    huge = scene.ask(*range(5000))
    await settled()
    scene.slot.gate.set()
    for task in (first, *asked, huge):
        await task
    sizes = [len(rows) for rows, _ in scene.slot.calls]
    assert sum(sizes) == 1 + 2000 + 5000
    assert all(size <= most or size == 5000 for size in sizes)


async def test_chaos_maps_every_answer_to_its_caller(scene):
    chance = random.Random(7)

    async def caller(number: int) -> None:
        values = [
            f"{number}-{row}" if chance.random() > 0.1 else "bad" for row in range(chance.randint(0, 4))
        ]
        await asyncio.sleep(chance.random() * 0.02)
        try:
            outcome = await scene.batcher.score([[value] for value in values], {"as": number % 3}, None)
        except ModelFailed:
            assert "bad" in values
        except Problem as problem:
            if problem.code != "overloaded":
                raise
        else:
            assert "bad" not in values
            assert outcome.predictions == [(value, number % 3) for value in values]

    await asyncio.gather(*(caller(number) for number in range(300)))


@pytest.mark.usefixtures("frozen")
async def test_waiting_is_bounded_by_what_it_gains_and_by_the_target(scene):
    batcher = scene.batcher
    batcher._line.append(entry := _waiting())
    batcher._gap_s = 0.001
    assert 0 < batcher._worth_waiting(1) <= 0.002, "others come soon, and a call costs ten times as much"
    batcher._gap_s = 1.0
    assert batcher._worth_waiting(1) == 0, "nobody comes"
    batcher._gap_s = 0.001
    entry.arrived -= 10
    assert batcher._worth_waiting(1) <= 0, "the oldest has waited long enough"
    batcher._line.clear()


def _waiting() -> Any:
    from chips_backend.batch import _Entry

    return _Entry([[1]], {}, None)
