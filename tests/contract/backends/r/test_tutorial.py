"""The tutorials, each command run as it is written."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.free_ports import claim_free_port
from tests.conftest import require
from tests.contract.backends.process import ROOT

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(page: Path) -> tuple[list[str], list[str], list[str]]:
    """The commands of a page, what they must print, and the programs that it says to save."""
    commands: list[str] = []
    outputs: list[str] = []
    programs: list[str] = []
    for kind, block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "console":
            for line in block.splitlines():
                (commands if line.startswith("$ ") else outputs).append(line.removeprefix("$ "))
        elif kind != "sh":
            programs.append(block)
    return commands, outputs, programs


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_r(has_r: None, tmp_path: Path):
    commands, outputs, (train,) = steps(ROOT / "docs/tutorial/r.md")
    assert len(commands) > 10
    assert len(outputs) > 2
    require(
        "curl", available=shutil.which("curl") is not None, why="curl is not installed (apt install curl)"
    )
    ports = {"9001": str(claim_free_port()), "8080": str(claim_free_port())}
    enter = next(at for at, command in enumerate(commands) if command.startswith("cd "))
    save = f"cp {tmp_path}/train.R ."
    (tmp_path / "train.R").write_text(train, encoding="utf-8")
    script = "\n".join(
        [
            "set -euo pipefail",
            "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT",
            *commands[: enter + 1],
            save,
            *commands[enter + 1 :],
        ]
    )
    script = re.sub("|".join(ports), lambda written: ports[written[0]], script)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}
    log = tmp_path / "output.txt"
    with log.open("wb") as output:  # no pipe: what runs in the background would hold it open
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env={**kept, "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    printed = log.read_text(encoding="utf-8")
    assert done.returncode == 0, printed
    for line in outputs:
        assert line in printed, f"{line}\nwas not printed, but\n{printed}"
