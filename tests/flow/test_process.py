"""`python -m gateway` as a real process: what it prints, how it ends, and that a stop loses no request."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from gateway.free_ports import claim_free_port
from tests.conftest import require
from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import Message, Peer, request
from tests.patience import patience
from tests.probes import children, until

ROOT = Path(__file__).parents[2]
PATIENCE_S = patience(30)


class Process:
    """A gateway as an operator starts it; standard output is read line by line."""

    def __init__(self, folder: Path, *flags: str, stdout: int = subprocess.PIPE, **environ: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *flags],
            cwd=folder,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "HOME": str(folder),
                "CHIPS_REGISTRY": f"sqlite://{folder}/registry.db",
                "CHIPS_SERVER__HOST": "127.0.0.1",
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []

    def read_until(self, text: str) -> str:
        """The first line of standard output that holds `text`."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().decode():
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"it ended without {text!r}: {self.lines} {self.errors()}")

    def port(self) -> int:
        message: str = json.loads(self.read_until("listens on"))["message"]
        return int(message.partition("http://127.0.0.1:")[2].split()[0])

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def ended(self) -> int:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        self.lines += (out or b"").decode().splitlines(keepends=True)
        assert b"Traceback" not in err, err
        return self.process.returncode


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Process] = []

    def start(*flags: str, **arguments: Any) -> Process:
        started.append(Process(tmp_path, *flags, **arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def register(folder: Path, url: str) -> None:
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "gateway.cli",
                "register",
                "slow",
                url,
                "--no-probe",
                "--force",
                "--version",
                "1",
            ),
            *(
                "--access",
                "public",
                "--registry",
                f"sqlite://{folder}/registry.db",
                "--gateway",
                "http://127.0.0.1:9",
            ),
        ],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done


# -- what it prints


def test_elsewhere_than_on_a_terminal_every_line_is_json(start):
    gateway = start(PORT="0")
    port = gateway.port()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready") as answer:
        assert json.loads(answer.read())["ready"] is True
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/wine").close()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.ended() == 0
    entries = [json.loads(line) for line in gateway.lines]
    assert all({"severity", "time", "message"} <= set(entry) for entry in entries)
    assert any("httpRequest" in entry for entry in entries)
    assert not any("\x1b" in line for line in gateway.lines)


@pytest.fixture
def terminal() -> tuple[int, int]:
    """Both ends of a pseudo-terminal: ours, and the program's."""
    try:
        return pty.openpty()
    except OSError as error:
        require("terminal", available=False, why=f"no pseudo-terminal can be opened here: {error}")
        raise


def test_on_a_terminal_a_block_tells_how_to_call_it(start, tmp_path: Path, terminal: tuple[int, int]):
    ours, theirs = terminal
    try:
        gateway = start("--server.port=0", stdout=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # a terminal whose other side has ended
            while b"stop with Ctrl-C" not in shown:
                shown += os.read(ours, 4096)
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(PATIENCE_S) == 0
    finally:
        os.close(ours)
    text = shown.decode()
    for told in (
        f"CHIPS {__version__} listens on http://127.0.0.1:",
        f"registry   sqlite://{tmp_path}/registry.db",
        "chips register NAME URL",
        "this machine only",
        "curl http://127.0.0.1:",
        "/-/ready",
    ):
        assert told in text, (told, text)
    assert '{"severity"' not in text


# -- how it ends


def test_wrong_flags_end_with_64(start):
    gateway = start("--server.port")
    errors = gateway.errors()
    assert gateway.ended() == 64
    assert "--server.port needs a value" in errors


def test_wrong_settings_end_with_78_and_are_all_named(start):
    gateway = start(CHIPS_SERVER__PORT="many", CHIPS_LOG__LEVEL="loud")
    errors = gateway.errors()
    assert gateway.ended() == 78
    assert "server.port" in errors
    assert "log.level" in errors


def test_a_taken_port_ends_with_71_and_names_another(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = start(PORT=str(port))
        line = json.loads(gateway.read_until("cannot listen"))
        assert gateway.ended() == 71
    assert line["severity"] == "CRITICAL"
    assert f"CHIPS_SERVER__PORT={port + 1}" in line["message"]


def test_port_is_read_and_a_setting_of_ours_wins_over_it(start):
    free = claim_free_port()
    gateway = start(PORT=str(free))
    assert gateway.port() == free
    other = start(PORT=str(free), CHIPS_SERVER__PORT="0")
    assert other.port() != free


class Slow:
    """A backend that answers when it is told to."""

    def __init__(self, background: BackgroundServers) -> None:
        self._beside = background
        self._asked = threading.Event()
        self._release = asyncio.Event()
        self.url = background.backend(self._script).url

    async def _script(self, _: Message, peer: Peer) -> None:
        self._asked.set()
        await self._release.wait()
        await peer.answer(200, b'{"predictions": [1]}')

    def wait_until_asked(self) -> None:
        assert self._asked.wait(PATIENCE_S)

    def release(self) -> None:
        self._beside.loop.call_soon_threadsafe(self._release.set)


def ask(port: int) -> socket.socket:
    caller = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    caller.sendall(request("POST", "/slow", body=b"{}"))
    return caller


def everything(caller: socket.socket) -> bytes:
    came = b""
    with contextlib.suppress(ConnectionError):
        while part := caller.recv(65536):
            came += part
            if came.endswith(b'{"predictions": [1]}'):
                break
    return came


def answers(port: int) -> bool:
    """Whether a new caller is answered, rather than refused or cut off."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as caller:
            caller.sendall(request("GET", "/-/live"))
            came = caller.recv(65536)
            assert came.startswith(b"HTTP/1.1 200"[: len(came)])
            return bool(came)
    except OSError:
        return False


def test_on_sigterm_what_is_under_way_finishes_and_nothing_new_is_taken(
    start, background: BackgroundServers, tmp_path: Path
):
    slow = Slow(background)
    register(tmp_path, slow.url)
    gateway = start(PORT="0")
    port = gateway.port()
    caller = ask(port)
    slow.wait_until_asked()
    gateway.process.send_signal(signal.SIGTERM)
    gateway.read_until("SIGTERM: no new connections are taken")
    while answers(port):  # the port closes a moment later; who still gets in is answered
        pass
    slow.release()
    came = everything(caller)
    caller.close()
    assert came.startswith(b"HTTP/1.1 200")
    assert came.endswith(b'{"predictions": [1]}')
    assert gateway.ended() == 0


def test_the_stop_does_not_wait_for_ever(start, background: BackgroundServers, tmp_path: Path):
    slow = Slow(background)
    register(tmp_path, slow.url)
    gateway = start(PORT="0", CHIPS_SERVER__STOP_GRACE_S="0.2")
    caller = ask(gateway.port())
    slow.wait_until_asked()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.ended() == 0
    assert b"200" not in everything(caller)[:20]
    caller.close()
    slow.release()


def test_a_second_signal_does_not_wait(start, background: BackgroundServers, tmp_path: Path):
    slow = Slow(background)
    register(tmp_path, slow.url)
    gateway = start(PORT="0", CHIPS_SERVER__STOP_GRACE_S="600")
    caller = ask(gateway.port())
    slow.wait_until_asked()
    gateway.process.send_signal(signal.SIGINT)
    gateway.read_until("SIGINT: no new connections are taken")
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.ended() == 130
    assert not any("stack" in json.loads(line) for line in gateway.lines)
    caller.close()
    slow.release()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc here")
def test_a_worker_that_has_not_seen_the_first_signal_sees_both(
    start, background: BackgroundServers, tmp_path: Path
):
    """Two of one kind that wait for a process are one (signal(7)): its second would be lost."""
    slow = Slow(background)
    register(tmp_path, slow.url)
    gateway = start("--server.workers=2", PORT="0", CHIPS_SERVER__STOP_GRACE_S="600")
    caller = ask(gateway.port())
    slow.wait_until_asked()
    workers = children(gateway.process.pid)
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    until(lambda: all(status(worker, "State").startswith("T") for worker in workers))
    gateway.process.send_signal(signal.SIGINT)
    until(lambda: all(pending_signals(worker) == {signal.SIGINT} for worker in workers))
    gateway.process.send_signal(signal.SIGINT)
    until(lambda: all(len(pending_signals(worker)) == 2 for worker in workers))
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    assert gateway.ended() == 130
    caller.close()
    slow.release()


def pending_signals(process: int) -> set[signal.Signals]:
    """What was sent to a process and has not reached it (proc_pid_status(5): ShdPnd)."""
    mask = int(status(process, "ShdPnd"), 16)
    return {number for number in (signal.SIGINT, signal.SIGTERM) if mask >> (number - 1) & 1}


def status(process: int, name: str) -> str:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (found,) = [line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")]
    return found


@pytest.mark.parametrize("setting", ["upstream.ca_file", "upstream.signing_keys"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_settings_name_and_that_is_not_there_ends_with_78(
    setting: str, workers: str, tmp_path: Path
):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gateway", f"--{setting}=/nowhere"),
            f"--upstream.sign_callers={str(setting == 'upstream.signing_keys').lower()}",
            *(
                f"--server.workers={workers}",
                "--server.port=0",
                f"--registry=sqlite://{tmp_path}/registry.db",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 78, done.stdout + done.stderr
    assert "/nowhere" in done.stdout + done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_that_waits_for_its_registry_is_stopped_at_once(start, workers: int):
    """The registry takes the connection and never says a word; nobody waits the ten minutes out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        gateway = start(
            "--server.port=0",
            "--server.registry_wait_s=600",
            f"--server.workers={workers}",
            "--registry=firestore://project/database",
            FIRESTORE_EMULATOR_HOST=f"127.0.0.1:{silent.getsockname()[1]}",
        )
        silent.accept()[0].close()  # it is in the middle of its start
        held, _ = silent.accept()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.ended() == 0
        held.close()
        assert not any("listens on" in line for line in gateway.lines)
