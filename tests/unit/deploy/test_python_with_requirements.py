"""The Python that runs a backend: this one where it has all that requirements.txt asks for, else one of an environment."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway.deploy.python_with_requirements import _missing, python_with_requirements
from gateway.deploy.target import DeployError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "churn"
    folder.mkdir()
    return folder


@pytest.fixture
def bare_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend library without requirements of its own, so that nothing is fetched."""
    library = tmp_path / "library"
    (library / "chips_backend").mkdir(parents=True)
    (library / "chips_backend/__init__.py").write_text("")
    (library / "pyproject.toml").write_text(
        "[project]\ndependencies = []\noptional-dependencies = {pandas = []}\n"
    )
    monkeypatch.setattr("gateway.deploy.python_with_requirements.library_folder", lambda _: library)


def silent(_: str) -> None: ...


@pytest.mark.parametrize(
    "requirements",
    [
        None,
        "",
        "# nothing\n\nscikit-learn\nnumpy>=1 # any\n",
        'nowhere-to-be-found; python_version < "3"',
        "pandas>=0a1",
        "uvicorn[standard]>=0; python_version < '3'",
        "xgboost>=3",
    ],
)
def test_this_python_has_it_all(requirements: str | None, folder: Path, tmp_path: Path):
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    assert python_with_requirements(folder, tmp_path / "environments", silent) == sys.executable
    assert not (tmp_path / "environments").exists()


@pytest.mark.parametrize(
    "line",
    [
        "nowhere-to-be-found",
        "numpy<1",
        "numpy @ https://example.com/numpy.whl",
        "-r others.txt",
        "./wheels/mine.whl",
        "no such line",
    ],
)
def test_what_this_python_lacks(line: str):
    assert _missing(f"scikit-learn\n{line}\n") == [line]


def wheel(folder: Path, value: int) -> Path:
    """A small package of its own, as a wheel."""
    path = folder / "chips_tests_extra-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("chips_tests_extra.py", f"VALUE = {value}\n")
        info = "chips_tests_extra-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: chips-tests-extra\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.usefixtures("bare_library")
@pytest.mark.slow
def test_an_environment_is_made_once_for_what_it_holds(folder: Path, tmp_path: Path):
    (folder / "requirements.txt").write_text(f"{wheel(tmp_path, 7)}\n")
    said: list[str] = []
    python = python_with_requirements(folder, tmp_path / "environments", said.append)
    assert python != sys.executable
    assert "requirements.txt" in said[0]
    code = "import chips_backend, chips_tests_extra; print(chips_tests_extra.VALUE)"
    done = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=False, env={})
    assert done.stdout == "7\n", done.stderr
    assert python_with_requirements(folder, tmp_path / "environments", said.append) == python
    assert len(said) == 1
    (folder / "requirements.txt").write_text(f"{tmp_path}/chips_tests_extra-1.0-py3-none-any.whl # again\n")
    assert python_with_requirements(folder, tmp_path / "environments", said.append) != python


@pytest.mark.usefixtures("bare_library")
@pytest.mark.slow
def test_pip_is_asked_where_uv_fails(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """uv reads none of pip's settings: it may not know the index, or the certificate, of this network."""
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\necho invalid peer certificate >&2\nexit 2\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(uv.parent), prepend=":")
    (folder / "requirements.txt").write_text(f"{wheel(tmp_path, 7)}\n")
    python = python_with_requirements(folder, tmp_path / "environments", silent)
    assert (
        subprocess.run([python, "-P", "-c", "import chips_tests_extra"], check=False, env={}).returncode == 0
    )


@pytest.mark.usefixtures("bare_library")
@pytest.mark.slow
def test_requirements_that_cannot_be_installed(folder: Path, tmp_path: Path):
    (folder / "requirements.txt").write_text("./not-there-1.0-py3-none-any.whl\n")
    for _ in range(2):  # a failed one is not taken for complete
        with pytest.raises(DeployError, match="not-there") as caught:
            python_with_requirements(folder, tmp_path / "environments", silent)
        assert "requirements.txt" in caught.value.hint
