"""Several workers on one port, as real processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


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
                self.lines.append(json.loads(line))
                self._more.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> str:
        found: list[str] = []

        def enough() -> bool:
            found[:] = [
                str(line["message"]) for line in self.lines if re.search(pattern, str(line["message"]))
            ]
            return len(found) >= count

        with self._more:
            assert self._more.wait_for(enough, 30), self.lines
        return found[count - 1]

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

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
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/live", timeout=10) as answer:
        assert answer.status == 200


def wait_until(condition, why: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def test_a_worker_that_dies_is_replaced_and_a_drain_reaches_all(running: Running):
    port = int(running.wait_for("listens on").split(":")[-1].split()[0])
    ask(port)
    before = running.workers()
    assert len(before) == 2
    os.kill(before[1], signal.SIGKILL)
    running.wait_for("ended by SIGKILL")
    wait_until(lambda: len(running.workers()) == 2, "no worker took its place")
    assert running.workers() != before
    ask(port)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    running.wait_for("^stopped$", 2)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)


def test_workers_do_not_outlive_their_supervisor(running: Running):
    running.wait_for("listens on")
    workers = running.workers()
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in workers), "workers live on")


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 71, done.stdout
    assert f"port {port}" in done.stdout
