"""Several workers on one port, as real processes."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.model import Backend, Model, Policy
from gateway.core.model_updates import to_document
from gateway.registry.base import MODELS, Put
from gateway.registry.open_by_url import open_registry
from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import Message, Peer, read_message, request
from tests.patience import patience
from tests.probes import children, is_closed, runs, until


def entry(line: str) -> dict[str, object]:
    """A line of the log. One that was cut off by kill -9, or that Python itself wrote, is a message as it is."""
    with contextlib.suppress(ValueError):
        found: dict[str, object] = json.loads(line)
        return found
    return {"message": line}


class Running:
    """A gateway with workers, and what it has written so far."""

    def __init__(self, folder: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "gateway", f"--registry=sqlite://{folder}/registry.db"]
        command += [
            "--server.host=127.0.0.1",
            "--server.port=0",
            "--log.format=json",
            "--trace.store=off",
            *flags,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[dict[str, object]] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.lines.append(entry(line))
                self._more.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> str:
        found: list[str] = []

        def enough() -> bool:
            found[:] = [
                str(line["message"]) for line in self.lines if re.search(pattern, str(line["message"]))
            ]
            return len(found) >= count

        with self._more:
            assert self._more.wait_for(enough, patience(30)), self.lines
        return found[count - 1]

    def workers(self) -> list[int]:
        return children(self.process.pid)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path, "--server.workers=2")
    yield running
    running.close()


def ask(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/live", timeout=patience(10)) as answer:
        assert answer.status == 200


def test_a_worker_that_dies_is_replaced_and_a_drain_reaches_all(running: Running):
    port = int(running.wait_for("listens on").split(":")[-1].split()[0])
    ask(port)
    until(lambda: len(running.workers()) == 2, "there are no two workers")
    before = running.workers()
    os.kill(before[1], signal.SIGKILL)
    running.wait_for("ended by SIGKILL")
    until(lambda: len(running.workers()) == 2, "no worker took its place")
    assert running.workers() != before
    ask(port)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(patience(30)) == 0
    running.wait_for("^stopped$|stopped before the start was complete", 2)
    assert is_closed(port)


def test_workers_do_not_outlive_their_supervisor(running: Running):
    running.wait_for("listens on")
    workers = running.workers()
    running.process.kill()
    running.process.wait()
    until(lambda: not any(map(runs, workers)), "workers live on")


def test_a_port_that_another_gateway_has_is_not_shared_with_it(running: Running, tmp_path: Path):
    port = running.wait_for("listens on").split(":")[-1].split()[0]
    command = [
        sys.executable,
        "-m",
        "gateway",
        f"--registry=sqlite://{tmp_path}/other.db",
        "--server.host=127.0.0.1",
    ]
    command += [f"--server.port={port}", "--server.workers=2", "--log.format=json", "--trace.store=off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(30), check=False)
    assert done.returncode == 71, done.stdout
    assert f"port {port}" in done.stdout


LIVE = request("GET", "/-/live")


class Held:
    """Connections of callers that stay open."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self.sockets = [socket.create_connection(("127.0.0.1", port), patience(30)) for _ in range(count)]

    def close(self) -> None:
        for connection in self.sockets:
            connection.close()

    def by_worker(self, workers: list[int]) -> dict[int, list[socket.socket]]:
        """Whose they are, by what the system says of the workers' descriptors."""
        inodes = {}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
            if local == self._port:
                inodes[f"socket:[{fields[9]}]"] = remote
        ports = {connection.getsockname()[1]: connection for connection in self.sockets}
        found: dict[int, list[socket.socket]] = {}
        for worker in workers:
            found[worker] = []
            for entry in Path(f"/proc/{worker}/fd").iterdir():
                with contextlib.suppress(OSError, KeyError):  # closed meanwhile, or nothing of ours
                    found[worker].append(ports[inodes[str(entry.readlink())]])
        return found


def listeners(port: int) -> int:
    """How many sockets listen on the port: each worker has its own."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    states = [(fields[1].rpartition(":")[2], fields[3]) for fields in map(str.split, lines)]
    return states.count((f"{port:04X}", "0A"))


def answered(connection: socket.socket) -> bytes:
    """The first line of the answer to a request on `connection`; nothing where that is broken."""
    with contextlib.suppress(OSError):
        connection.sendall(LIVE)
        return connection.recv(65536).partition(b"\r\n")[0]
    return b""


def test_all_workers_get_callers_and_keep_them_when_another_dies(running: Running):
    port = int(running.wait_for("listens on").split(":")[-1].split()[0])
    until(lambda: len(running.workers()) == 2, "there are no two workers")
    first, second = running.workers()
    until(lambda: listeners(port) == 2, "only one listens")
    with contextlib.ExitStack() as stack:
        owned: dict[int, list[socket.socket]] = {}

        def reaches_both() -> bool:
            held = Held(port, 64)
            stack.callback(held.close)
            assert {answered(connection) for connection in held.sockets} == {b"HTTP/1.1 200 OK"}
            owned.update(held.by_worker([first, second]))
            assert sum(map(len, owned.values())) == 64
            return all(owned.values())

        until(reaches_both, "one worker gets nobody")
        os.kill(second, signal.SIGKILL)
        running.wait_for("ended by SIGKILL")
        assert {answered(connection) for connection in owned[first]} == {b"HTTP/1.1 200 OK"}
        assert {answered(connection) for connection in owned[second]} == {b""}
        until(lambda: len(running.workers()) == 2, "no worker took its place")
        (new,) = set(running.workers()) - {first}
        until(lambda: listeners(port) == 2, "the new one does not listen")

        def reaches_the_new_one() -> bool:
            more = Held(port, 32)
            stack.callback(more.close)
            assert {answered(connection) for connection in more.sockets} == {b"HTTP/1.1 200 OK"}
            return bool(more.by_worker([new])[new])

        until(reaches_the_new_one, "nobody reaches the new worker")
        assert {answered(connection) for connection in owned[first]} == {b"HTTP/1.1 200 OK"}


async def register(folder: Path, backend: Backend) -> None:
    registry = open_registry(f"sqlite://{folder}/registry.db")
    model = Model(name="slow", policy=Policy(access="public"), backends=(backend,), traffic={"1": 100})
    await registry.write(Put(kind=MODELS, name="slow", body=to_document(model), expected=0), author="test")
    await registry.close()


def test_a_drain_lets_every_worker_finish_what_is_under_way(tmp_path: Path):
    background = BackgroundServers()
    release, asked = asyncio.Event(), threading.Semaphore(0)

    async def slow(_: Message, peer: Peer) -> None:
        asked.release()
        await release.wait()
        await peer.answer(200, b"done")

    backend = background.backend(slow)

    asyncio.run(register(tmp_path, Backend(version="1", url=backend.url)))
    running = Running(tmp_path, "--server.workers=2", "--server.stop_grace_s=60")
    try:
        port = int(running.wait_for("listens on").split(":")[-1].split()[0])
        until(lambda: len(running.workers()) == 2, "there are no two workers")
        workers = running.workers()
        until(lambda: listeners(port) == 2, "only one listens")
        held = Held(port, 0)
        while not all(held.by_worker(workers).values()):  # until both have some
            connection = socket.create_connection(("127.0.0.1", port), patience(60))
            held.sockets.append(connection)
            connection.sendall(request("POST", "/slow", body=b"{}"))
            assert asked.acquire(timeout=patience(60))
            assert len(held.sockets) < 500
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("no new connections are taken", 2)
        until(lambda: listeners(port) == 0, "the port is still open")
        successor = Running(tmp_path, "--server.workers=2", f"--server.port={port}")
        try:
            successor.wait_for("listens on")
        finally:
            successor.close()
        background.loop.call_soon_threadsafe(release.set)
        for connection in held.sockets:
            answer = connection.recv(65536)
            assert (answer[:12], answer[-4:]) == (b"HTTP/1.1 200", b"done"), answer
        assert running.process.wait(patience(60)) == 0
        running.wait_for("^stopped$", 2)
        held.close()
    finally:
        running.close()
        background.close()


def test_a_worker_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A health check may reach the other one, so nobody outside would see that half of the callers wait."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    running = Running(tmp_path, "--server.workers=2", f"--server.stall_s={patience(3)}")
    try:
        running.wait_for("listens on")
        until(lambda: len(running.workers()) == 2, "there are no two workers")
        hung = running.workers()[1]
        until(lambda: list(tmp_path.glob("chips-workers-*/1.heartbeat")), "worker 1 has not begun to beat")
        os.kill(hung, signal.SIGSTOP)
        running.wait_for("worker 1 does not come round")
        running.wait_for("ended by SIGKILL")
        until(lambda: len(running.workers()) == 2 and hung not in running.workers(), "nobody took its place")
    finally:
        running.close()


def test_workers_that_share_a_backend_get_all_callers_their_answer(tmp_path: Path):
    """It runs two requests and has no queue: what it refuses waits again at the worker that sent it."""
    background = BackgroundServers()
    present = 0

    async def two_at_once(_: Message, peer: Peer) -> None:
        nonlocal present
        if present >= 2:
            await peer.answer(503, b"{}", [("Retry-After", "1")])
            return
        present += 1
        await asyncio.sleep(0.005)
        present -= 1
        await peer.answer(200, b"done")

    async def call(port: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("POST", "/slow", body=b"{}"))
        answer = await read_message(reader, request=False)
        writer.close()
        return answer.status

    async def call_all(port: int) -> set[int]:
        return set(await asyncio.gather(*(call(port) for _ in range(100))))

    asyncio.run(
        register(tmp_path, Backend(version="1", url=background.backend(two_at_once).url, concurrency=2))
    )
    running = Running(tmp_path, "--server.workers=2")
    try:
        port = int(running.wait_for("listens on").split(":")[-1].split()[0])
        until(lambda: len(running.workers()) == 2, "there are no two workers")
        assert asyncio.run(call_all(port)) == {200}
    finally:
        running.close()
        background.close()
