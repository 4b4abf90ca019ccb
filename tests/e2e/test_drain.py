"""SIGTERM under load with kept connections: no request is lost that was sent before its caller could know.

`DRAINS=50 pytest tests/e2e/test_drain.py` repeats each drain so often.
"""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.test_workers import Running
from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import Message, Peer, read_message, request
from tests.flow.test_process import register
from tests.patience import patience

DRAINS = int(os.environ.get("DRAINS", "1"))
CALLERS = 12
REFUSED_S = patience(2.0)  # a handshake that is not answered for so long is not going to be
# The callers are one process: where it has no turn for longer, all of them send too late.
LINGER_S = min(patience(1.0), 60)

pytestmark = pytest.mark.timeout(60 + 30 * DRAINS)


class Load:
    """Callers in a closed loop, each on its own connection, kept as long as the gateway keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = Counter[str]()
        self.lost: list[str] = []
        self.flowing = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(self._call(number))

    async def _call(self, number: int) -> None:
        body = b'{"instances": [%d]}' % number
        while True:
            try:
                async with asyncio.timeout(REFUSED_S):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:  # TimeoutError is one: nobody answers the handshake, nothing was sent
                return
            try:
                await self._use(reader, writer, body)
            finally:
                writer.close()

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        for count in range(1_000_000):
            if reader.at_eof():  # the end of the connection was there before the request
                return
            try:
                writer.write(request("POST", "/slow", body=body))
                answer = await read_message(reader, request=False)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                self.lost.append(f"request {count} of a connection: {error!r}")
                return
            if answer.status != 200 or not answer.complete:
                self.lost.append(f"{answer.first} {answer.body!r}")
            kept = answer.get("Connection") != "close"
            self.answered["kept" if kept else "last"] += 1
            if self.answered["kept"] > 20 * CALLERS:
                self.flowing.set()
            if not kept:
                return


async def a_little_later(request: Message, peer: Peer) -> None:
    await asyncio.sleep(0.005)  # so that requests are under way at any moment
    await peer.answer(200, b'{"predictions": [1]}')


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_drain_loses_no_request(background: BackgroundServers, tmp_path: Path, path: str, workers: int):
    register(tmp_path, background.backend(a_little_later).url)
    for _ in range(DRAINS):
        running = Running(
            tmp_path,
            f"--server.workers={workers}",
            f"--server.path={path}",
            f"--server.stop_linger_s={LINGER_S}",
            f"--server.stop_grace_s={LINGER_S + 8}",
        )
        try:
            port = int(running.wait_for("listens on").split(":")[-1].split()[0])
            load = asyncio.run(drained(running, port))
            assert running.process.wait(patience(30)) == 0
            assert not load.lost, (load.lost, load.answered)
            assert load.answered["last"], "no answer said that it was the last one"
            running.wait_for("^stopped$", workers)
        finally:
            running.close()


async def drained(running: Running, port: int) -> Load:
    load = Load(port)
    calling = asyncio.create_task(load.run())
    await load.flowing.wait()
    running.process.send_signal(signal.SIGTERM)
    await calling
    return load
