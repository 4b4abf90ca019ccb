"""`chips` as real processes: what stands on standard output, how it ends, and two of them at once."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys

from gateway.core.api_keys import is_well_formed
from gateway.registry.open_by_url import open_registry
from tests.flow.background_servers import BackgroundServers
from tests.flow.contract import Contract
from tests.flow.scripted import Message, Peer
from tests.patience import patience
from tests.unit.cli.shell import Ended, Shell


def test_every_json_answer_is_one_document_on_standard_output(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    for arguments, code in (
        (("register", "wine", backend.url), 0),
        (("register", "wine", backend.url), 0),
        (("models",), 0),
        (("show", "wine"), 0),
        (("disable", "wine"), 0),
        (("keys", "create", "ci"), 0),
        (("keys", "list"), 0),
        (("check",), 0),
        (("show", "nobody"), 65),
        (("deregister", "wine"), 64),
        (("deregister", "wine", "--yes"), 0),
        (("models", "--bogus"), 64),
    ):
        ended = shell.run(*arguments, "--json")
        assert ended.code == code, (arguments, ended)
        assert ("error" in ended.json()) == (code != 0), arguments
        assert "\x1b" not in ended.out + ended.err


def test_a_captured_key_is_a_key(shell: Shell):
    ended = shell.run("keys", "create", "ci")
    assert ended.code == 0
    assert is_well_formed(ended.out.removesuffix("\n"))


def test_python_m_gateway_register_is_chips_register(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    process = subprocess.run(
        [sys.executable, "-m", "gateway.register", "wine", backend.url, "--json"],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=False,
    )
    assert process.returncode == 0, process
    assert json.loads(process.stdout)["written"] is True


def test_the_command_needs_no_library_that_it_does_not_declare(shell: Shell):
    """typer has a copy of click of its own: click itself is only there where something else brought it."""
    script = "import sys; sys.modules['click'] = None; from gateway.cli import main; main(['version'])"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=patience(30), check=False
    )
    assert process.returncode == 0, process.stderr


def test_ctrl_c_ends_with_130_and_writes_nothing(shell: Shell, background: BackgroundServers):
    asked = asyncio.Event()

    async def silent(request: Message, peer: Peer) -> None:
        asked.set()
        await peer.reader.read()

    process = shell.start("register", "wine", background.backend(silent).url)
    background.run(asked.wait())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=patience(30))
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert shell.ok("models", "--json").json() == []


def test_a_reader_that_stops_reading_is_no_error(shell: Shell):
    for number in range(30):
        shell.register(f"wine-{number}", "1", "--description", "x" * 4000)
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "models", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=patience(30),
        check=False,
    )
    os.close(writing)
    assert "Traceback" not in process.stderr
    assert "Exception ignored" not in process.stderr


def test_of_two_who_register_at_once_one_wins_and_the_other_is_told(
    shell: Shell, background: BackgroundServers
):
    """Both read the same state, for the write lock is held until both have shown what they are about to change.

    One that has shown it stands still until then: it would not wait for the lock for as long as the other may take.
    """
    shell.register("other")  # the registry exists
    first, second = background.backend(Contract("wine", "1")), background.backend(Contract("wine", "2"))
    lock = sqlite3.connect(shell.registry.removeprefix("sqlite://"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    racing = [shell.start("register", "wine", backend.url) for backend in (first, second)]
    shown = []
    for process in racing:
        assert process.stdout is not None
        lines: list[str] = []
        while not any("traffic." in line for line in lines):
            line = process.stdout.readline()
            assert line, (lines, process.communicate())
            lines.append(line)
        process.send_signal(signal.SIGSTOP)
        shown.append("".join(lines))
    lock.execute("ROLLBACK")
    lock.close()
    for process in racing:
        process.send_signal(signal.SIGCONT)
    ended = []
    for process in racing:
        out, err = process.communicate(timeout=patience(30))
        ended.append(Ended(process.returncode, out, err))
    assert sorted(end.code for end in ended) == [0, 75], ended
    (won,) = [version for version, end in zip("12", ended, strict=True) if end.code == 0]
    (lost,) = [end for end in ended if end.code == 75]
    assert "somebody changed it meanwhile" in lost.err
    model = shell.model()
    assert model["revision"] == 1
    assert [known["version"] for known in model["backends"]] == [won]
    assert model["traffic"] == {won: 100}


def test_many_who_register_at_once_lose_nothing(shell: Shell, background: BackgroundServers):
    """A command that ended with 0 is in the registry; one that ended with 75 left no trace.

    They meet halfway, unless one is so late that the others would give up the backend they ask.
    """
    together = asyncio.Event()
    versions = ["1", "2", "3", "4"]
    arrived = []

    def backend(version: str) -> str:
        contract = Contract("wine", version)

        async def script(request: Message, peer: Peer) -> None:
            if request.target == "/v2/models/wine" and version not in arrived:
                arrived.append(version)
                if len(arrived) == len(versions):
                    together.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(together.wait(), 2)
            await contract(request, peer)

        return background.backend(script).url

    racing = {version: shell.start("register", "wine", backend(version)) for version in versions}
    codes = {}
    for version, process in racing.items():
        _, err = process.communicate(timeout=patience(40))
        codes[version] = process.returncode
        assert process.returncode in {0, 75}, err
    winners = {version for version, code in codes.items() if code == 0}
    assert winners
    model = shell.model()
    assert {known["version"] for known in model["backends"]} == winners
    assert model["revision"] == len(winners)
    assert sum(model["traffic"].values()) == 100

    async def generation() -> int:
        registry = open_registry(shell.registry)
        try:
            return (await registry.load_mirrored()).generation
        finally:
            await registry.close()

    assert asyncio.run(generation()) == len(winners)
