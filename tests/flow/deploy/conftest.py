import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.shell import Shell

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wine model, trained once: model.joblib, signature.json, samples.json."""
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run(
        [sys.executable, "examples/wine/train.py", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture
def backend_folder(tmp_path: Path, trained: Path) -> Path:
    """A backend folder as a data scientist has it."""
    folder = tmp_path / "models" / "wine"
    (folder / "artifact").mkdir(parents=True)
    (folder / "artifact/model.joblib").write_bytes((trained / "model.joblib").read_bytes())
    for name in ("signature.json", "samples.json"):
        (folder / name).write_bytes((trained / name).read_bytes())
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "backend.toml").write_text(
        'model = "wine"\nversion = "1"\nsignature = "signature.json"\nsamples = "samples.json"\n'
        f"command = {json.dumps([sys.executable, '-m', 'chips_backend'])}\nconcurrency = 2\n"
    )
    return folder


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT}/backends/python")
    shell = Shell(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT}/backends/python")
    monkeypatch.setenv("CHIPS_ARTIFACTS", str(tmp_path / "artifacts"))
    return shell
