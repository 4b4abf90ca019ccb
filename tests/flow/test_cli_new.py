"""`chips new`: what it writes is trained, tested and deployed at once, in each language there is here."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.flow.deploy.conftest import ROOT
from tests.patience import patience
from tests.unit.cli.shell import Shell

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CHIPS_ARTIFACTS", str(tmp_path / "artifacts"))
    return shell


@pytest.fixture(autouse=True)
def nothing_runs_on(shell: Shell) -> Iterator[None]:
    yield
    for note in (Path(os.environ["XDG_STATE_HOME"]) / "chips/local").glob("*/*/*.json"):
        shell(
            "undeploy", note.parent.parent.name, "--version", note.parent.name, "--target", "local", "--force"
        )


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def deploy_and_score(shell: Shell, folder: Path, name: str) -> None:
    ended = shell.run("deploy", str(folder), "--target", "local", "--json")
    assert ended.code == 0, ended
    sample = json.loads((folder / "trained/samples.json").read_text())[0]
    request = urllib.request.Request(
        ended.json()["url"] + "/predict",
        json.dumps(sample["request"]).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=patience(30)) as answer:
        content = json.load(answer)
    assert content["model"] == name
    assert content["predictions"] == pytest.approx(sample["response"]["predictions"])


def test_python(shell: Shell, tmp_path: Path):
    assert "models/churn" in shell.ok("new", "python", "churn").out
    folder = tmp_path / "models/churn"
    run(folder, "make", "train", "test", f"PYTHON={sys.executable}")
    deploy_and_score(shell, folder, "churn")


def test_r(shell: Shell, tmp_path: Path):
    require("r", available=shutil.which("Rscript") is not None, why="Rscript is not installed")
    shell.ok("new", "r", "uptake")
    folder = tmp_path / "models/uptake"
    run(folder, "make", "train", "test")
    deploy_and_score(shell, folder, "uptake")


def test_julia(shell: Shell, tmp_path: Path):
    julia = os.environ.get("JULIA") or shutil.which("julia")
    require("julia", available=julia is not None, why="Julia is not installed")
    shell.ok("new", "julia", "wines")
    # That it is deployed and answers is in the tutorial, whose test does so: to compile it takes a minute.
    run(tmp_path / "models/wines", "make", "train", "test", f"JULIA={julia}")


def test_what_is_there_is_left_alone(shell: Shell, tmp_path: Path):
    (tmp_path / "models/churn").mkdir(parents=True)
    (tmp_path / "models/churn/thesis.txt").write_text("years of work")
    assert shell("new", "python", "churn").code == 65
    assert [path.name for path in (tmp_path / "models/churn").iterdir()] == ["thesis.txt"]
    assert shell("new", "python", "No Name").code == 65
    assert shell("new", "cobol", "churn").code == 64
