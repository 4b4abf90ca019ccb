"""A model that was copied into a backend folder, and trained or saved again at its source: no old copy is served unnoticed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.deploy.copied_model_source import read_source
from tests.patience import patience
from tests.unit.cli.shell import Ended, Shell

pytestmark = pytest.mark.timeout(240)

TRAIN = """
import sys
import pandas as pd
from chips_backend import save
from sklearn.linear_model import LinearRegression

x = pd.DataFrame({"a": [1.0, 2.0, 4.0, 5.0]})
save(LinearRegression().fit(x, x["a"] * float(sys.argv[1])), "trained", example=x, overwrite=True)
"""
MLFLOW = """
python_model: sum
flavors: {python_function: {loader_module: m}}
signature: {inputs: '[{"name": "a", "type": "double"}]'}
"""


@pytest.fixture(autouse=True)
def nothing_runs_on(shell: Shell) -> Iterator[None]:
    yield
    for note in (Path(os.environ["XDG_STATE_HOME"]) / "chips/local").glob("*/*/*.json"):
        shell(
            "undeploy", note.parent.parent.name, "--version", note.parent.name, "--target", "local", "--force"
        )


@pytest.fixture
def train(tmp_path: Path) -> Callable[[int], None]:
    """Train the model y = factor * a, and save it to trained/."""

    def train(factor: int) -> None:
        subprocess.run(
            [sys.executable, "-c", TRAIN, str(factor)], cwd=tmp_path, check=True, capture_output=True
        )

    return train


@pytest.fixture
def folder(shell: Shell, tmp_path: Path, train: Callable[[int], None]) -> Path:
    train(2)
    shell.ok("new", "python", "prices", "--from", "trained")
    return tmp_path / "models/prices"


def factor(folder: Path) -> Any:
    """The model's factor, by the first sample of what is deployed."""
    sample = json.loads((folder / "trained/samples.json").read_text())[0]
    return sample["response"]["predictions"][0] / sample["request"]["instances"][0]["a"]


def deploy(shell: Shell, *options: str) -> Ended:
    return shell("deploy", "prices", "--target", "local", "--no-try", *options)


@pytest.mark.slow
def test_what_was_trained_again_is_deployed(shell: Shell, folder: Path, train: Callable[[int], None]):
    assert deploy(shell).code == 0
    assert factor(folder) == pytest.approx(2)
    train(3)
    verified = shell.ok("verify", str(folder))
    assert "has changed since it was copied" in verified.err
    assert deploy(shell, "--version", "2", "--dry-run").code == 0
    assert factor(folder) == pytest.approx(2), "a dry run changes nothing"
    second = deploy(shell, "--version", "2")
    assert second.code == 0
    assert "was replaced by" in second.err
    assert factor(folder) == pytest.approx(3)
    assert not list(folder.glob(".refresh-*"))
    assert "was replaced by" not in deploy(shell, "--version", "2").err


@pytest.mark.slow
def test_the_same_version_with_another_model_is_refused(
    shell: Shell, folder: Path, train: Callable[[int], None]
):
    assert deploy(shell).code == 0
    train(3)
    refused = deploy(shell)
    assert refused.code
    assert "--version NEXT" in refused.err


@pytest.mark.slow
def test_an_edited_copy_is_not_overwritten(shell: Shell, folder: Path, train: Callable[[int], None]):
    edited = json.loads((folder / "trained/samples.json").read_text())[:1]
    (folder / "trained/samples.json").write_text(json.dumps(edited))
    assert deploy(shell).code == 0, "edited, but its source has not changed"
    train(3)
    refused = deploy(shell, "--version", "2")
    assert refused.code == 65
    assert "--refresh takes the new model" in refused.err
    assert json.loads((folder / "trained/samples.json").read_text()) == edited
    assert deploy(shell, "--no-refresh").code == 0
    assert factor(folder) == pytest.approx(2)
    assert deploy(shell, "--version", "2", "--refresh").code == 0
    assert factor(folder) == pytest.approx(3)


@pytest.mark.slow
def test_requirements_follow_the_model_unless_they_were_edited(
    shell: Shell, folder: Path, train: Callable[[int], None]
):
    requirements = folder / "requirements.txt"
    written = requirements.read_text()
    requirements.write_text(written + "# mine\n")
    train(3)
    told = deploy(shell, "--dry-run")
    assert "requirements.txt was edited, so it stays; the model now needs" in told.err
    assert deploy(shell).code == 0
    train(4)
    assert deploy(shell, "--version", "2").code == 0
    assert requirements.read_text() == written + "# mine\n"


@pytest.mark.slow
def test_without_its_source_the_copy_is_deployed(shell: Shell, folder: Path, tmp_path: Path):
    (tmp_path / "trained").rename(tmp_path / "gone")
    assert deploy(shell).code == 0
    refused = deploy(shell, "--refresh")
    assert refused.code == 65
    assert "is not there any more" in refused.err


def test_a_source_that_is_no_model_any_more_loses_nothing(shell: Shell, folder: Path, tmp_path: Path):
    (tmp_path / "trained/signature.json").write_text("{")
    refused = deploy(shell)
    assert refused.code == 65
    assert factor(folder) == pytest.approx(2)
    assert not list(folder.glob(".refresh-*"))


@pytest.mark.slow
def test_a_model_file_alone(shell: Shell, tmp_path: Path, train: Callable[[int], None]):
    train(2)
    (model,) = (tmp_path / "trained").glob("model.*")
    said = shell.ok("new", "python", "prices", "--from", str(model)).out
    assert f"--from {model.parent} takes those next to it" in said
    copied = tmp_path / "models/prices/trained" / model.name
    before = copied.read_bytes()
    train(3)
    assert deploy(shell).code == 0
    assert copied.read_bytes() == model.read_bytes() != before


def test_an_imported_model_is_imported_again(shell: Shell, tmp_path: Path):
    source = tmp_path / "saved"
    source.mkdir()
    (source / "MLmodel").write_text(MLFLOW)
    shell.ok("import-model", "mlflow:saved", "--name", "sums", "--no-samples")
    folder = tmp_path / "models/sums"
    record = read_source(folder)
    assert record is not None
    assert record.display_text(folder) == f"mlflow:{source}"
    (source / "MLmodel").write_text(MLFLOW.replace('"a"', '"b"'))
    # It cannot be served, since there is no such loader; what is checked before that is the new one.
    shell("deploy", "sums", "--target", "local")
    assert '"b"' in (folder / "trained/signature.json").read_text()
    assert '"b"' in (folder / "trained/mlflow/MLmodel").read_text()


@pytest.mark.slow
def test_watching_looks_at_the_source_too(shell: Shell, tmp_path: Path, train: Callable[[int], None]):
    train(2)
    (trained,) = (tmp_path / "trained").glob("model.*")
    model = trained.rename(tmp_path / trained.name)
    shell.ok("new", "python", "prices", "--from", str(model))
    train(3)
    with shell.start("deploy", "prices", "--watch") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("watching") for line in lines)
        trained.replace(model)  # at once, as a file is replaced that nobody may read half
        assert any(line.startswith("watching") for line in lines)
        assert (tmp_path / "models/prices/trained" / model.name).read_bytes() == model.read_bytes()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=patience(60))


@pytest.mark.slow
def test_a_column_that_was_renamed_is_told_before_it_gets_traffic(shell: Shell, folder: Path, tmp_path: Path):
    assert deploy(shell).code == 0
    assert "warning" not in deploy(shell, "--version", "2").err
    renamed = TRAIN.replace('"a"', '"b"')
    subprocess.run([sys.executable, "-c", renamed, "2"], cwd=tmp_path, check=True, capture_output=True)
    told = deploy(shell, "--version", "3").err
    assert "warning: inputs that are gone: a; new inputs: b" in told
    assert "requests that version 1 takes may get 422 from version 3" in told


@pytest.mark.slow
def test_a_damaged_record_says_what_to_do(shell: Shell, folder: Path):
    (folder / "source.json").write_text("{}")
    refused = deploy(shell)
    assert refused.code == 65
    assert "delete it to deploy the folder as it is" in refused.err
