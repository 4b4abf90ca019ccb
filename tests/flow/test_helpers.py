# Long: one gateway with every part that has a thread or a task.
"""Every thread and task of a running gateway has an owner; one that ends for good ends the process."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import gateway
from tests.flow.issuer import KeyServer, setting, signer
from tests.flow.scene import Scene

# Belong to one caller's connection, which owns them and is drained: not the supervisor's.
OF_A_CONNECTION = {"request", "RequestHandler.start"}


def name_of(task: "asyncio.Task[Any]") -> str:
    coroutine = task.get_coro()
    return (
        task.get_name()
        if not task.get_name().startswith("Task-")
        else str(getattr(coroutine, "__qualname__", ""))
    )


def is_ours(task: "asyncio.Task[Any]") -> bool:
    """Tasks that a library makes inside of one call, such as a name look-up, end with that call."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is None or Path(code.co_filename).is_relative_to(Path(gateway.__file__).parent)


async def test_no_thread_and_no_task_is_without_an_owner(tmp_path: Path):
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
    async with KeyServer(signer()) as keys:
        flags = {
            "trace.store": str(tmp_path / "requests.db"),
            "trace.exporter": "otlp",
            "trace.otlp_endpoint": "http://127.0.0.1:9",
            "metrics.exporter": "otlp",
            "metrics.every_s": "5",
            "registry_fallback": f"file:{tmp_path}/fallback.gz",
            "auth.issuers": setting(keys.url),
            "upstream.identity": "google",
            "upstream.metadata_host": "127.0.0.1:9",
        }
        seen: set[str] = set()
        async with Scene(**flags) as scene:
            supervisor = scene.gateway.supervisor
            spawned: list[asyncio.Task[Any]] = []
            loop = asyncio.get_running_loop()
            loop.set_task_factory(
                lambda loop, coroutine, **options: _noted(spawned, loop, coroutine, options)
            )
            try:
                await scene.model()
                operator = await scene.make_key("*", verbs=("score", "operate"))
                bearer = [("Authorization", f"Bearer {signer().token()}")]
                assert (await scene.call()).status == 200
                assert (await scene.call(key=None, fields=bearer)).status == 200
                assert (await scene.call(target="/nobody")).status == 404
                assert (await scene.call("GET", "/-/metrics", key=operator)).status == 200
                assert (await scene.call("GET", "/-/models", key=operator)).status == 200
                watching = await scene.caller()
                await watching.send(scene.request("GET", "/-/events", key=operator))
                await watching.reader.readuntil(b"event: ")
            finally:
                loop.set_task_factory(None)
            for thread in set(threading.enumerate()) - threads:
                assert supervisor.owns(thread), f"the thread {thread.name} has no owner"
                seen.add(thread.name.partition("_")[0])
            for task in {*asyncio.all_tasks(), *spawned} - tasks:
                if is_ours(task) and name_of(task) not in OF_A_CONNECTION:
                    assert supervisor.owns(task), f"the task {name_of(task)} has no owner"
                    seen.add(name_of(task))
            metrics = (await scene.call("GET", "/-/metrics", key=operator)).body.decode()
        assert seen >= {
            "log",
            "export store",
            "export otlp",
            "aggregation",
            "metrics export",
            "blocking call",
        }
        assert seen >= {
            "registry watch",
            "registry fallback",
            "last use of keys",
            "key look-up",
            "issuers' keys",
        }
        assert 'chips_helper_restarts_total{helper="registry watch"} 0' in metrics


def _noted(spawned: list[Any], loop: Any, coroutine: Any, options: dict[str, Any]) -> "asyncio.Task[Any]":
    task = asyncio.Task(coroutine, loop=loop, **options)
    spawned.append(task)
    return task


ENDS = """
import sys
from gateway.auth import api_key_last_used
from gateway.thread_and_task_supervisor import UnrecoverableError

async def run(self, helper):
    raise UnrecoverableError("a reason")

api_key_last_used.LastUsedRecorder._run = run
from gateway.serve import serve
sys.exit(serve(sys.argv[1:]))
"""


@pytest.mark.parametrize("workers", ["1"])
def test_a_helper_that_has_ended_ends_the_process_with_its_reason(tmp_path: Path, workers: str):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            ENDS,
            f"--server.workers={workers}",
            "--server.port=0",
            "--server.host=127.0.0.1",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 75, done
    assert (
        "last use of keys: it has ended for good, and with it this process: UnrecoverableError: a reason"
        in done.stderr
    )
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["severity"] for e in entries if "ended for good" in e["message"]] == ["CRITICAL"]
    assert entries[-1]["message"] == "stopped"
