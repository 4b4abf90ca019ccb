"""Budgets at a gateway: refused with a status, a reason and the end of the period, and counted through a restart."""

import json
import time

import pytest

from gateway.core.budget import Budget
from gateway.cost.usage_documents import read_usage, utc_day
from tests.flow.scene import Scene
from tests.patience import patience
from tests.unit.cost.fleet import remove_budget, set_budget


async def _count(scene: Scene) -> None:
    """What an interval does, now."""
    usage, keeper = scene.gateway._usage, scene.gateway._budgets
    assert usage is not None
    assert keeper is not None
    generation = (await scene.registry.load_mirrored()).generation
    assert await scene.gateway.mirror.wait_for_generation(generation, timeout_s=patience(5))
    await usage.write()
    await keeper.refresh()


@pytest.mark.parametrize(("refuse", "code"), [(402, "budget-exhausted"), (429, "too-many-requests")])
@pytest.mark.one_day
async def test_a_used_up_budget_refuses_until_its_period_ends(scene: Scene, refuse, code):
    backend = await scene.model()
    key = await scene.make_key("*", team="cellar")
    budget = Budget(scope="team", name="cellar", amount_micros=1, refuse=refuse)
    await set_budget(scene.registry, budget)
    assert (await scene.call(key=key)).status == 200
    await _count(scene)
    before = len(backend.seen)
    refused = await scene.call(key=key)
    assert refused.status == refuse
    assert 0 < int(refused.get("retry-after") or "") <= 31 * 86_400
    problem = json.loads(refused.body)
    assert problem["code"] == code
    assert 'team "cellar" has used up the budget of this month' in problem["detail"]
    assert len(backend.seen) == before, "the backend sees nothing of it"
    assert (await scene.call()).status == 200, "another caller's calls go on"

    async with scene.another_gateway():
        assert (await scene.call(key=key)).status == refuse, "from the first request on"

    await remove_budget(scene.registry, budget)
    await _count(scene)
    assert (await scene.call(key=key)).status == 200


@pytest.mark.one_day
async def test_who_may_not_call_a_model_uses_up_none_of_its_budget(scene: Scene):
    backend = await scene.model()
    await set_budget(scene.registry, Budget(scope="model", name="wine", amount_micros=1, refuse=402))
    key = await scene.make_key("beer")
    for _ in range(5):
        assert (await scene.call(key=None)).status == 401
        assert (await scene.call(key=key)).status == 403
    await _count(scene)
    assert not backend.seen
    assert scene.gateway._budgets is not None
    assert scene.gateway._budgets.spent == {"model:wine": 0}
    assert (await scene.call()).status == 200
    await _count(scene)
    assert (await scene.call()).status == 402


@pytest.mark.one_day
async def test_the_last_write_has_every_request(scene: Scene):
    await scene.model()
    async with scene.another_gateway():
        for _ in range(3):
            assert (await scene.call()).status == 200
        assert (await scene.call(key=None)).status == 401
        day = utc_day(time.time())
    usage = await read_usage(scene.registry, sorted({day, utc_day(time.time())}))
    by_caller = {row.key.caller: row.usage for row in usage.rows}
    assert by_caller[""].refused == 1
    (other,) = [row for caller, row in by_caller.items() if caller]
    assert (other.requests, other.refused, other.failed) == (3, 0, 0)
    assert other.backend_us > 0
    assert other.bytes_out > 0
