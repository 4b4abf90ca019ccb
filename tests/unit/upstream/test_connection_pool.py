"""A backend whose connections time out is left alone for a moment, then tried once."""

import asyncio
import math
import time

import pytest

from gateway.core.errors import GatewayError, UpstreamUnavailable, UpstreamUnreachable
from gateway.server.eager_coroutine_runner import EagerCoroutineRunner
from gateway.upstream.backend_connection import BackendConnection
from gateway.upstream.connection_pool import Pool
from gateway.upstream.pool_metrics import pool_counters, pool_gauges

SILENCES = 5


class Transport(asyncio.Transport):
    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...


class Scripted(Pool):
    """`outcome` is what comes of the next attempt to connect; None: a connection."""

    def __init__(self) -> None:
        super().__init__(host="backend.test", port=80, limit=100, connect_timeout_s=60, idle_s=60)
        self.outcome: BaseException | None = TimeoutError()
        self.tried = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def _connect(self) -> BackendConnection:
        self.tried += 1
        await self.go_on.wait()
        if self.outcome is not None:
            raise self.outcome
        connection = BackendConnection(self)
        connection.connection_made(Transport())
        return connection

    def ask(self) -> "asyncio.Future[BackendConnection | GatewayError]":
        """What a request gets that needs a connection."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[BackendConnection | GatewayError] = loop.create_future()

        async def request() -> None:
            try:
                told.set_result(await self.acquire(time.monotonic() + 60))
            except GatewayError as error:
                told.set_result(error)

        EagerCoroutineRunner(loop, lambda: None).start(request())
        return told


@pytest.fixture(autouse=True)
def an_open_circuit_closes_only_where_the_test_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.connection_pool._CIRCUIT_OPEN_S", math.inf)


async def silent(times: int = SILENCES) -> Scripted:
    pool = Scripted()
    for _ in range(times):
        error = await pool.ask()
        assert isinstance(error, UpstreamUnreachable)
        assert isinstance(error.__cause__, TimeoutError)
    return pool


async def test_after_enough_silence_nobody_waits_for_it():
    pool = await silent()
    assert pool.circuit_open
    error = await pool.ask()
    assert isinstance(error, UpstreamUnavailable)
    assert (b"Retry-After", b"2") in error.headers
    assert (pool.tried, pool.refusals) == (SILENCES, 1)
    assert pool_gauges({"http://b:80": pool})["chips_breaker_open"] == {"http://b:80": 1}
    assert pool_counters({"http://b:80": pool})["chips_breaker_refusals_total"] == {"http://b:80": 1}


async def test_then_one_is_tried_and_the_others_do_not_wait_for_it():
    pool = await silent()
    pool._circuit_open_until = 0.0  # the moment is over
    pool.go_on.clear()
    trying = pool.ask()
    while pool.tried == SILENCES:
        await asyncio.sleep(0)
    assert isinstance(await pool.ask(), UpstreamUnavailable)
    pool.outcome = None
    pool.go_on.set()
    assert isinstance(await trying, BackendConnection)
    assert not pool.circuit_open
    assert isinstance(await pool.ask(), BackendConnection)


async def test_silent_again_it_is_left_alone_again():
    pool = await silent()
    pool._circuit_open_until = 0.0
    assert isinstance(await pool.ask(), UpstreamUnreachable)
    assert isinstance(await pool.ask(), UpstreamUnavailable)


@pytest.mark.parametrize("refusal", [ConnectionRefusedError(), OSError("no route")])
async def test_a_backend_that_refuses_is_asked_each_time(refusal: OSError):
    pool = await silent(SILENCES - 1)
    pool.outcome = refusal
    for _ in range(3 * SILENCES):
        assert isinstance(await pool.ask(), UpstreamUnreachable)
    assert pool.refusals == 0
    pool.outcome = TimeoutError()  # what was before does not count any more
    assert isinstance(await pool.ask(), UpstreamUnreachable)
    assert not pool.circuit_open


async def test_who_can_have_a_connection_that_is_there_gets_it():
    pool = Scripted()
    pool.outcome = None
    connection = await pool.ask()
    assert isinstance(connection, BackendConnection)
    pool.outcome = TimeoutError()
    for _ in range(SILENCES):
        assert isinstance(await pool.ask(), UpstreamUnreachable)
    assert pool.circuit_open
    pool.go_on.clear()
    waiting = pool.ask()
    while not pool.waiting:
        await asyncio.sleep(0)
    pool.release(connection)
    assert await waiting is connection
    pool.release(connection)
    assert pool.acquire_idle() is connection
    await pool.close()


async def test_the_labels_of_pools_are_bounded():
    pools: dict[str, Pool] = {f"http://b{number}:80": Scripted() for number in range(600)}
    for pool in pools.values():
        pool.opens = 1
    opens = pool_counters(pools)["chips_pool_opens_total"]
    assert len(opens) == 501
    assert (opens["http://b0:80"], opens["other"], sum(opens.values())) == (1, 100, 600)


async def test_who_waits_already_is_not_kept_waiting_for_silence():
    pool = await silent(SILENCES - 1)
    pool._limit = 1
    pool.go_on.clear()
    asked = [pool.ask() for _ in range(3)]
    pool.go_on.set()
    first, *others = await asyncio.gather(*asked)
    assert isinstance(first, UpstreamUnreachable)
    assert all(isinstance(other, UpstreamUnavailable) for other in others)
    assert pool.tried == SILENCES
    assert not pool.waiting
