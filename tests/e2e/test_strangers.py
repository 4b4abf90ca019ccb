"""5 000 strangers at one gateway, or as many as files allow: known callers are served, on kept and on new connections.

What it costs them in time is for `python -m benchmarks.strangers` to say.
"""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.strangers import many_files, strangers
from tests.e2e.test_workers import Running
from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import Message, Peer, read_message, request
from tests.flow.test_process import register

STRANGERS = 5000

pytestmark = pytest.mark.timeout(240)


async def answer_at_once(_: Message, peer: Peer) -> None:
    await peer.answer(200, b'{"predictions": [1]}')


@pytest.mark.parametrize("path", ["fast", pytest.param("plain", marks=pytest.mark.slow)])
def test_known_callers_are_served_whatever_strangers_hold(
    background: BackgroundServers, tmp_path: Path, path: str
):
    register(tmp_path, background.backend(answer_at_once).url)
    with many_files() as files:
        count = min(STRANGERS, files)
        if count < 300:
            pytest.skip(f"the hard limit of files allows {count} strangers only (ulimit -Hn)")
        running = Running(tmp_path, "--server.workers=1", f"--server.path={path}", "--log.ratio=0")
        try:
            port = int(running.wait_for("listens on").split(":")[-1].split()[0])
            limits = Path(f"/proc/{running.process.pid}/limits").read_text()
            (files_line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
            soft, hard = files_line.split()[3:5]
            assert soft == hard, "the soft limit was not raised"
            assert asyncio.run(served(port, count)) == {"kept 200": 100, "new 200": 60}
        finally:
            running.close()


async def served(port: int, count: int) -> Counter[str]:
    seen = Counter[str]()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", "/slow", body=b"{}"))
    assert (await read_message(reader, request=False)).status == 200
    async with strangers(port, count):
        for _ in range(100):
            writer.write(request("POST", "/slow", body=b"{}"))
            seen[f"kept {(await read_message(reader, request=False)).status}"] += 1
        for _ in range(60):
            new_reader, new_writer = await asyncio.open_connection("127.0.0.1", port)
            new_writer.write(request("POST", "/slow", body=b"{}"))
            answer = await read_message(new_reader, request=False)
            seen[
                f"new {answer.status}" if answer.status == 200 else f"new {answer.status}: {answer.body!r}"
            ] += 1
            new_writer.close()
    writer.close()
    return seen
