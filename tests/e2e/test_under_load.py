"""Real processes under load: no error of the gateway's own making, honest errors while the backend is away, flat memory."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from gateway.free_ports import claim_free_port
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]
CALLERS = 16
AWAY = {502, 503}

pytestmark = pytest.mark.timeout(240)


class System:
    """A gateway, a Python backend with the wine model, and a key, all of them real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.backend_port = claim_free_port(), claim_free_port()
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")},
            "CHIPS_REGISTRY": f"sqlite://{folder}/registry.db",
            "CHIPS_ARTIFACTS": str(folder / "artifacts"),
            "CHIPS_SERVER__PORT": str(self.port),
            "CHIPS_SERVER__HOST": "127.0.0.1",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout

    def start(self, module: str, **environ: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module], cwd=ROOT, env={**self.environ, **environ}, stdout=log
            )
        self._processes.append(process)
        return process

    def start_backend(self, **environ: str) -> subprocess.Popen[bytes]:
        return self.start(
            "chips_backend",
            **environ,
            CHIPS_MODEL="wine",
            CHIPS_VERSION="1",
            CHIPS_ARTIFACT=str(self.folder / "artifacts/wine/1"),
            PORT=str(self.backend_port),
        )

    def set_up(self, **environ: str) -> str:
        """Publish, serve, register; return a key. `environ` is for the backend."""
        out = self.folder / "training"
        self.run("examples/wine/train.py", str(out))
        chips = ("-m", "gateway.cli")
        described = ("--signature", str(out / "signature.json"), "--samples", str(out / "samples.json"))
        self.run(
            *chips, "publish", str(out / "model.joblib"), "--model", "wine", "--version", "1", *described
        )
        self.backend = self.start_backend(**environ)
        self.gateway = self.start("gateway")
        self.run(*chips, "register", "wine", f"http://127.0.0.1:{self.backend_port}", "--wait", "60")
        return self.run(*chips, "keys", "create", "load").strip()

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path)
    yield system
    system.stop()


def resident_bytes(process: subprocess.Popen[bytes]) -> int:
    """What `process` and its children hold in memory."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue  # it has ended meanwhile
        if str(process.pid) in {fields["Pid"].strip(), fields["PPid"].strip()}:
            total += int(fields.get("VmRSS", "0 kB").split()[0]) * 1024
    return total


@pytest.mark.slow
async def test_a_backend_that_dies_and_comes_back_under_load(system: System):
    key = await asyncio.to_thread(system.set_up)
    sample = json.loads((system.folder / "training/samples.json").read_text())[0]
    seen: Counter[int] = Counter()
    wrong: list[str] = []
    phase = asyncio.Event()

    async def caller(session: aiohttp.ClientSession) -> None:
        while not phase.is_set():
            async with session.post(f"http://127.0.0.1:{system.port}/wine", json=sample["request"]) as answer:
                body = await answer.json(content_type=None)
                seen[answer.status] += 1
                if answer.status == 200:
                    if body["predictions"] != sample["response"]["predictions"]:
                        wrong.append(f"not the model's answer: {body}")
                elif answer.status not in AWAY or answer.content_type != "application/problem+json":
                    wrong.append(f"{answer.status}: {body}")

    async def until(count: int, *statuses: int) -> None:
        goal = sum(seen[status] for status in statuses) + count
        while sum(seen[status] for status in statuses) < goal:
            await asyncio.sleep(0.05)

    async with aiohttp.ClientSession(headers={"X-Api-Key": key}) as session:
        callers = [asyncio.create_task(caller(session)) for _ in range(CALLERS)]
        await until(500, 200)
        before = resident_bytes(system.gateway)
        assert set(seen) == {200}, seen

        system.backend.send_signal(signal.SIGKILL)
        await asyncio.to_thread(system.backend.wait)
        await until(200, *AWAY)
        system.start_backend()
        await until(1500, 200)
        after = resident_bytes(system.gateway)

        phase.set()
        await asyncio.gather(*callers)
    assert not wrong, wrong[:3]
    assert set(seen) <= {200, *AWAY}
    assert after < before + 16 * 1024 * 1024, (before, after)

    system.gateway.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(system.gateway.wait, patience(15)) == 0


@pytest.mark.slow
async def test_two_hundred_callers_at_once_are_all_answered_by_a_backend_that_runs_two(system: System):
    key = await asyncio.to_thread(system.set_up, CHIPS_CONCURRENCY="2")
    sample = json.loads((system.folder / "training/samples.json").read_text())[0]
    seen: Counter[tuple[int, str]] = Counter()

    async def call(session: aiohttp.ClientSession) -> None:
        async with session.post(f"http://127.0.0.1:{system.port}/wine", json=sample["request"]) as answer:
            body = await answer.json(content_type=None)
            seen[answer.status, str(body.get("predictions", body))] += 1

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers={"X-Api-Key": key}, connector=connector) as session:
        for _ in range(3):
            await asyncio.gather(*(call(session) for _ in range(200)))
    assert seen == {(200, str(sample["response"]["predictions"])): 600}
