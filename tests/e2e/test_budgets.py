"""A budget at real gateways: workers, one that is killed, one that is stopped, and one that starts when all is spent."""

import asyncio
import signal
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from gateway.core.budget import Budget
from gateway.cost.usage_documents import read_usage, utc_day
from tests.e2e.fleet import Fleet
from tests.patience import eventually
from tests.unit.cost.fleet import set_budget

pytestmark = pytest.mark.timeout(120)


@pytest.mark.one_day
async def test_a_used_up_budget_refuses_everywhere_and_after_every_restart(tmp_path: Path):
    fleet = Fleet(tmp_path)
    answers: Counter[int] = Counter()
    begun = utc_day(time.time())

    async def counted() -> Counter[str]:
        """What the usage documents have."""
        usage = await read_usage(fleet.registry, [begun, begun + timedelta(days=1)])
        found: Counter[str] = Counter()
        for row in usage.rows:
            found["requests"] += row.usage.requests
            found["refused"] += row.usage.refused
        return found

    async def all_counted() -> bool | None:
        return (await counted())["requests"] == answers.total() or None

    try:
        await fleet.set_up()
        budget = Budget(scope="model", name="wine", amount_micros=60, refuse=402)
        await set_budget(fleet.registry, budget)
        killed = await fleet.start_gateway("--server.workers=1", "--cost.interval_s=1")
        stopped = await fleet.start_gateway("--server.workers=2", "--cost.interval_s=1")
        async with aiohttp.ClientSession() as session:

            async def call(port: int) -> int:
                async with session.post(f"http://127.0.0.1:{port}/wine", json={}) as answer:
                    answers[answer.status] += 1
                    if answer.status == 402:
                        assert int(answer.headers["Retry-After"]) > 0
                        assert (await answer.json())["code"] == "budget-exhausted"
                    return answer.status

            async def all_refuse() -> bool | None:
                return [await call(port) for port in fleet.ports for _ in range(4)] == [402] * 8 or None

            await eventually(all_refuse)
            assert set(answers) == {200, 402}
            assert fleet.stable.requests == answers[200]
            await eventually(all_counted)
            killed.send_signal(signal.SIGKILL)
            stopped.send_signal(signal.SIGTERM)
            await asyncio.to_thread(killed.wait)
            await asyncio.to_thread(stopped.wait)
            again = await fleet.start_gateway("--server.workers=1", "--cost.interval_s=300")
            assert await call(fleet.ports[-1]) == 402, "from the first request on"
            again.send_signal(signal.SIGTERM)
            await asyncio.to_thread(again.wait)
        assert await counted() == {"requests": answers.total(), "refused": answers[402]}
    finally:
        await fleet.stop()
