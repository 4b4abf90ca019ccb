"""A person at a shell: types `chips …` and looks at what it prints and how it ends."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from gateway.cli import main
from gateway.core.version_evidence import VERIFY, EvidenceRecord
from gateway.registry.evidence_records import evidence_change
from gateway.registry.open_by_url import open_registry
from tests.patience import patience


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


class Shell:
    """`shell("models")` runs `chips models` in this process; `start` runs it in one of its own."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in list(os.environ):
            if name.startswith(("CHIPS_", "COV_CORE")) or name in {"PORT", "FORCE_COLOR", "DEBUG"}:
                monkeypatch.delenv(name)
        self.registry = f"sqlite://{folder}/registry.db"
        monkeypatch.setenv("CHIPS_REGISTRY", self.registry)
        monkeypatch.setenv(
            "CHIPS_SERVER__PORT", "9"
        )  # the discard port: no gateway of somebody else's answers
        monkeypatch.setenv("LOGNAME", "ana")
        # A process that is started elsewhere must still find the tree under test.
        monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
        monkeypatch.chdir(folder)
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main(list(arguments))
        out, err = self._capsys.readouterr()
        code = ending.value.code
        assert isinstance(code, int)
        assert "Traceback" not in err
        return Ended(code, out, err)

    def ok(self, *arguments: str) -> Ended:
        ended = self(*arguments)
        assert ended.code == 0, ended
        return ended

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> Ended:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=patience(90))
        return Ended(process.returncode, out, err)

    def register(self, name: str = "wine", version: str = "1", *options: str) -> Ended:
        """Register without a backend that runs: for tests of everything else."""
        return self.ok(
            "register",
            name,
            f"http://127.0.0.1:9/{name}-{version}",
            "--no-probe",
            "--force",
            "--version",
            version,
            *options,
        )

    def verified(self, name: str = "wine", version: str = "1", **changes: Any) -> None:
        """The evidence that a registration that asks the backend leaves."""
        record = EvidenceRecord(
            model=name,
            version=version,
            sort=VERIFY,
            passed=True,
            summary="28 checks passed",
            backend=f"http://127.0.0.1:9/{name}-{version}/predict",
        )

        async def write() -> None:
            registry = open_registry(self.registry)
            change = await evidence_change(registry, msgspec.structs.replace(record, **changes))
            await registry.write(change, author="ana")
            await registry.close()

        asyncio.run(write())

    def start_watching(self) -> subprocess.Popen[str]:
        """`chips watch --json`, which has told of two models, the second while it ran."""
        self.register("wine")
        process = self.start("watch", "--json")
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["generation"], first["models"]) == (1, 1)
        self.register("beer", "1", "--by", "bea", "--reason", "thirst")
        change = json.loads(process.stdout.readline())
        assert (change["name"], change["action"], change["author"]) == ("beer", "create", "bea")
        return process

    def model(self, name: str = "wine") -> Any:
        return self.ok("show", name, "--json").json()
