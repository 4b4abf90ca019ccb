"""Helpers: tried again, counted, told once and told when it is over; the end of one is the end of the process."""

import ast
import asyncio
import logging
import threading
from pathlib import Path

import pytest

import gateway
from gateway.telemetry.recorded_request_queue import RecordedRequestQueue
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor, UnrecoverableError, join_in_steps
from gateway.upstream.pooled_client import PooledUpstream
from tests.patience import patience


def test_joined_in_steps_a_thread_gets_its_turns_however_long_one_of_them_takes(
    monkeypatch: pytest.MonkeyPatch,
):
    class Late(threading.Thread):
        turns = 0

        def join(self, timeout: float | None = None) -> None:
            assert timeout is not None
            assert timeout < 1
            self.turns += 1

        def is_alive(self) -> bool:
            return self.turns < 3

    late = Late()
    join_in_steps(late, 1.0)
    assert late.turns == 3
    late.turns = -1000
    join_in_steps(late, 1.0)
    assert -1000 < late.turns < -900, "one that hangs is given up"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.thread_and_task_supervisor._FIRST_DELAY_S", 0.001)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_thread_that_fails_is_run_again_and_told_of_twice(caplog: pytest.LogCaptureFixture):
    supervisor = Supervisor()
    runs: list[None] = []

    def run(helper: HelperHealth) -> None:
        runs.append(None)
        if len(runs) < 5:
            raise OSError("disk full\nforged")
        helper.succeeded()

    with caplog.at_level(logging.INFO):
        thread = supervisor.create_retrying_thread("log", run, interrupt_backoff=threading.Event())
        thread.start()
        thread.join(patience(30))
    assert len(runs) == 5
    assert supervisor.restart_counters() == {"chips_helper_restarts_total": {"log": 4.0}}
    told = messages(caplog)
    assert len(told) == 2
    assert told[0].startswith("log: it fails and is tried again: OSError: disk full")
    assert told[1] == "log: it works again after 4 failures"


async def test_so_is_a_task(caplog: pytest.LogCaptureFixture):
    supervisor = Supervisor()
    runs: list[None] = []

    async def run(helper: HelperHealth) -> None:
        runs.append(None)
        if len(runs) < 3:
            raise ValueError("no")
        helper.succeeded()

    with caplog.at_level(logging.INFO):
        await supervisor.start_retrying_task("watch", run)
    assert supervisor.helper("watch").restarts == 2
    assert len(messages(caplog)) == 2


async def test_a_task_that_is_cancelled_stays_so():
    supervisor, begun = Supervisor(), asyncio.Event()

    async def run(_: HelperHealth) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = supervisor.start_retrying_task("watch", run)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert supervisor.helper("watch").restarts == 0


async def test_a_cancellation_that_nobody_asked_for_is_an_error_that_may_pass(
    caplog: pytest.LogCaptureFixture,
):
    """So grpc.aio says that a stream's channel was closed."""
    supervisor, begun = Supervisor(), 0

    async def run(helper: HelperHealth) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            waited_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waited_for.cancel()
            await waited_for
        helper.succeeded()

    await supervisor.start_retrying_task("watch", run)
    assert (begun, supervisor.helper("watch").restarts) == (2, 1)
    assert len(messages(caplog)) == 2


async def test_a_task_that_is_cancelled_while_it_waits_to_be_tried_again_stays_so():
    supervisor, begun = Supervisor(), asyncio.Event()

    async def run(_: HelperHealth) -> None:
        begun.set()
        raise asyncio.CancelledError

    task = supervisor.start_retrying_task("watch", run)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "error", [UnrecoverableError("no more"), MemoryError("no more"), SystemExit("no more")]
)
def test_the_end_of_a_thread_is_not_unseen(error: BaseException):
    supervisor, ends = Supervisor(), []
    supervisor.on_fatal = lambda name, reason: ends.append((name, reason))

    def run(_: HelperHealth) -> None:
        raise error

    thread = supervisor.create_retrying_thread("log", run, interrupt_backoff=threading.Event())
    thread.start()
    thread.join(patience(30))
    assert ends == [("log", error)]


async def test_nor_is_that_of_a_task_or_a_job():
    supervisor, ends = Supervisor(), []
    supervisor.on_fatal = lambda name, reason: ends.append((name, str(reason)))

    async def run(*_: HelperHealth) -> None:
        raise UnrecoverableError("no more")

    await supervisor.start_retrying_task("watch", run)
    job = supervisor.start_one_off_task("read", run())
    with pytest.raises(UnrecoverableError):
        await job
    await asyncio.sleep(0)
    assert ends == [("watch", "no more"), ("read", "no more")]


async def test_a_jobs_error_is_for_those_who_wait_and_never_lost(caplog: pytest.LogCaptureFixture):
    supervisor = Supervisor()

    async def work(error: Exception | None) -> int:
        if error is not None:
            raise error
        return 1

    assert await supervisor.start_one_off_task("read", work(None)) == 1
    for error in (LookupError("a bug"), OSError("expected")):
        job = supervisor.start_one_off_task("read", work(error), expected=OSError)
        await asyncio.wait({job})
        await asyncio.sleep(0)
    assert supervisor.helper("read").restarts == 1
    assert [text for text in messages(caplog) if "a bug" in text]
    assert not [text for text in messages(caplog) if "expected" in text]
    await supervisor.start_one_off_task("read", work(None))


def test_the_wait_grows_and_is_bounded():
    helper = HelperHealth("x")
    waits = [helper.failed(OSError("x")) for _ in range(2000)]
    assert waits == sorted(waits)
    assert max(waits) <= 30
    helper.succeeded()
    assert helper.failed(OSError("x")) == waits[0]


def test_an_error_with_one_keeps_no_other_from_its_turn(caplog: pytest.LogCaptureFixture):
    helper = HelperHealth("time-outs")
    done: list[float] = []

    def work(item: int) -> None:
        done.append(1 / item)

    for _ in range(3):
        helper.each([1, 0, 2], work)
    assert done == [1.0, 0.5] * 3
    assert helper.restarts == 3
    helper.each([1], work)
    assert [text for text in messages(caplog) if text.startswith("time-outs")] == messages(caplog)
    assert len(messages(caplog)) == 2


def test_a_timer_outlives_a_lack_of_memory():
    helper = HelperHealth("time-outs")
    done: list[int] = []

    def work(item: int) -> None:
        if not item:
            raise MemoryError
        done.append(item)

    helper.each([1, 0, 2], work)
    assert (done, helper.restarts) == ([1, 2], 1)


async def test_a_timer_goes_on_after_an_error():
    """It sets itself again only if its round comes to an end."""
    upstream = PooledUpstream(connections=1, connect_timeout_s=1, idle_s=1, tunnel_idle_s=1)

    class Broken:
        has_requests = False

        def close_idle(self, now: float) -> None:
            raise LookupError(now)

        async def close(self) -> None: ...

    upstream.pools["x"] = Broken()  # type: ignore[assignment]
    await upstream.start()
    assert upstream._timer.restarts == 1
    assert upstream._alarm is not None
    await upstream.stop()


@pytest.mark.parametrize("error", [UnrecoverableError("no more"), MemoryError("no more")])
def test_what_is_fatal_is_not_taken_for_passing(error: Exception):
    """Also where a helper catches all errors of a round."""
    supervisor, ends = Supervisor(), []
    ended = threading.Event()

    def note(name: str, reason: BaseException) -> None:
        ends.append((name, reason))
        ended.set()

    supervisor.on_fatal = note

    class Sink:
        def write(self, *_: object) -> None:
            raise error

        def close(self) -> None: ...

    queue = RecordedRequestQueue("store", Sink, interval_s=0.001, supervisor=supervisor)
    queue.start()
    queue.enqueue(None)  # type: ignore[arg-type]
    assert ended.wait(patience(60))
    assert ends == [("export store", error)]
    queue.stop(1)


async def test_who_is_known():
    supervisor = Supervisor()

    async def nothing(*_: HelperHealth) -> None: ...

    task, job = supervisor.start_retrying_task("a", nothing), supervisor.start_one_off_task("b", nothing())
    stranger = asyncio.create_task(nothing())
    assert supervisor.owns(task)
    assert supervisor.owns(job)
    assert not supervisor.owns(stranger)
    await asyncio.gather(task, job, stranger)
    with supervisor.make_blocking_call_executor("calls", threads=1) as pool:
        assert supervisor.owns(pool.submit(threading.current_thread).result())
    assert not supervisor.owns(threading.current_thread())


# What starts tasks or threads next to the supervisor, and who is waiting for them there.
BESIDE_IT = {
    "app.py": "the drain, in a TaskGroup",
    "serve.py": "start and stop, which the process waits for",
    "server/eager_coroutine_runner.py": "a request, which its connection owns",
    "registry/firestore/registry.py": "the next message, which the watch waits for",
    "testing/registry_contract.py": "the suite for plug-ins",
    "audit/anchor_store.py": "downloads, which one call waits for",
}
_STARTS = {"create_task", "ensure_future", "Thread", "ThreadPoolExecutor", "start_soon", "TaskGroup"}


def test_nothing_is_started_beside_the_supervisor():
    root = Path(gateway.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        place = path.relative_to(root)
        if place.parts[0] in {"artifacts", "cli", "deploy", "thread_and_task_supervisor.py", "verify"}:
            continue  # commands end with what they began
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            function = node.func if isinstance(node, ast.Call) else None
            if getattr(function, "attr", getattr(function, "id", "")) in _STARTS:
                found.add(place.as_posix())
    assert found <= {*BESIDE_IT, "registry/sqlite.py"}, "start it with gateway.thread_and_task_supervisor"
