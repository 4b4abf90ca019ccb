"""`chips why`, `tail` and `top` against a gateway that runs."""

import asyncio
import json
import os
import sys
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from tests.console.stage import Stage, staged
from tests.patience import patience


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path) as stage:
        yield stage


async def start(stage: Stage, *arguments: str, key: str = "") -> asyncio.subprocess.Process:
    return await start_at(f"http://127.0.0.1:{stage.gateway.port}", *arguments, key=key or stage.operator)


async def start_at(address: str, *arguments: str, key: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.cli",
        *arguments,
        env={**os.environ, "CHIPS_GATEWAY": address, "CHIPS_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def chips(stage: Stage, *arguments: str, key: str = "") -> tuple[int | None, str, str]:
    process = await start(stage, *arguments, key=key)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_why_asks_the_gateway(stage: Stage):
    answer = await stage.call("POST", "/wine")
    request_id = answer.get("X-Request-Id") or ""
    async with asyncio.timeout(patience(50)):
        while True:
            code, out, err = await chips(stage, "why", request_id)
            if code == 0:
                break
            assert code == 65, err
    assert "backend predict" in out
    assert "wine@" in out


async def test_tail_follows(stage: Stage):
    process = await start(stage, "tail", "--last", "0", "--json", "--model", "wine")
    assert process.stdout is not None
    told: dict[str, Any] = {}
    async with asyncio.timeout(patience(50)):
        reading = asyncio.ensure_future(process.stdout.readline())
        while not reading.done():  # until it listens, what is sent is not for it
            await stage.call("POST", "/fraud-cards")
            await stage.call("POST", "/wine")
            await asyncio.wait({reading}, timeout=0.3)
        told = json.loads(await reading)
    assert told["model"] == "wine"
    process.terminate()
    await process.wait()


async def test_the_last_errors_are_found_behind_good_requests(stage: Stage):
    async with asyncio.timeout(patience(50)):
        while (failed := await stage.call("POST", "/fraud-cards")).status < 500:  # it fails now and then
            pass
    for _ in range(3):
        await stage.call("POST", "/wine")
    arguments = ("tail", "--errors", "--last", "1", "--no-follow", "--json")
    async with asyncio.timeout(patience(50)):
        while True:
            code, out, err = await chips(stage, *arguments)
            assert code == 0, err
            if out:
                break
    assert json.loads(out)["request_id"] == failed.get("X-Request-Id")


@pytest.mark.parametrize("status", [404, 200])
@pytest.mark.parametrize(
    "command", [("tail", "--no-follow"), ("top", "--once"), ("why", "--slowest", "wine")], ids=" ".join
)
async def test_what_is_not_a_gateway_is_named(command: tuple[str, ...], status: int):
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"status": "up"}, status=status)

    async with RawTestServer(answer, port=0) as other:
        address = str(other.make_url("/")).rstrip("/")
        process = await start_at(address, *command, key="")
        _, err = await process.communicate()
    assert process.returncode == 76, err
    assert f"what answers at {address} is not this gateway" in err.decode()


async def test_top_for_people_and_machines(stage: Stage):
    await stage.call("POST", "/wine")
    code, out, err = await chips(stage, "top", "--once")
    assert code == 0, err
    assert "wine" in out
    assert "1 70 %" in out
    code, out, _ = await chips(stage, "top", "--json")
    assert {model["name"] for model in json.loads(out)["models"]} >= {"wine", "fraud-cards"}


async def test_a_key_that_may_not(stage: Stage):
    code, _, err = await chips(stage, "top", "--once", key=stage.key)
    assert code == 77
    assert "may not operate" in err
