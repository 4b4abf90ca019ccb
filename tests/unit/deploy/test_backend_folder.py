"""What an image is made of: a person's files, next to those of the library, which the folder does not contain."""

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from gateway.deploy.backend_folder import BackendFolder, FolderError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained/model.joblib").write_bytes(b"model")
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "features").mkdir()
    (tmp_path / "features/text.py").write_text("")
    (tmp_path / "backend.toml").write_text(
        'model = "churn"\nversion = "1"\nlanguage = "python"\nartifact = "trained"\n'
    )
    return tmp_path


def context(folder: Path) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(BackendFolder(folder).reproducible_source_archive())) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive.getmembers()}  # type: ignore[union-attr]


def test_the_library_comes_from_this_installation(folder: Path):
    files = context(folder)
    assert {"Dockerfile", "requirements.lock", "pyproject.toml", "chips_backend/app.py"} <= set(files)
    assert {name for name in files if name.startswith("model/")} == {
        "model/backend.toml", "model/requirements.txt", "model/features/text.py",
    }  # fmt: skip
    assert not any("__pycache__" in name for name in files)
    assert b"CHIPS_PREDICT" not in files["Dockerfile"]
    assert (
        BackendFolder(folder).reproducible_source_archive()
        == BackendFolder(folder).reproducible_source_archive()
    ), "the same files, the same digest"


def test_code_around_the_model_is_taken(folder: Path):
    (folder / "predict.py").write_text("RUNS_IN = 'process'\n")
    files = context(folder)
    assert files["model/predict.py"] == b"RUNS_IN = 'process'\n"
    assert files["Dockerfile"].endswith(b"ENV CHIPS_PREDICT=/app/predict.py\n")
    assert BackendFolder(folder).environment() == {"CHIPS_PREDICT": str(folder / "predict.py")}


def test_r_has_a_library_too(folder: Path):
    settings = folder / "backend.toml"
    settings.write_text(settings.read_text().replace('"python"', '"r"'))
    files = context(folder)
    assert {"Dockerfile", "entrypoint.sh", "main.R", "predict.R", "R/main.R", "src/reader.cpp"} <= set(files)
    assert "model/backend.toml" in files
    assert files["Dockerfile"].endswith(b"COPY model/ model/\n")
    assert files[".dockerignore"].endswith(b"!model/\n"), "else the build would not see it"
    shell, script = BackendFolder(folder).command("python")
    assert (shell, Path(script).name, Path(script).exists()) == ("sh", "entrypoint.sh", True)
    (folder / "predict.R").write_text("")
    assert context(folder)["Dockerfile"].endswith(b"ENV CHIPS_PREDICT=/srv/app/model/predict.R\n")
    assert BackendFolder(folder).environment() == {"CHIPS_PREDICT": str(folder / "predict.R")}
    (folder / "main.R").write_text("")
    assert "R/main.R" not in context(folder), "a folder that contains the library is left alone"


def test_the_r_packages_that_save_named_are_in_the_image(folder: Path):
    settings = folder / "backend.toml"
    settings.write_text(settings.read_text().replace('"python"', '"r"'))
    assert b'ARG MODEL_PACKAGES="r-cran-ranger"\n' in context(folder)["Dockerfile"]
    named = folder / "trained/runtime.json"
    named.write_text('{"R": "4.5.0", "splines": "4.5.0", "mgcv": "1.9.1", "MASS": "7.3"}')
    assert b'ARG MODEL_PACKAGES="r-cran-mass r-cran-mgcv"\n' in context(folder)["Dockerfile"]
    named.write_text('{"R": "4.5.0"}')
    assert b'ARG MODEL_PACKAGES=""\n' in context(folder)["Dockerfile"]
    for wrong in ('{"a; rm -rf /": "1"}', '["mgcv"]'):
        named.write_text(wrong)
        with pytest.raises(FolderError, match=r"runtime\.json"):
            context(folder)


@pytest.mark.parametrize(
    ("wanted", "told"), [("r-cran-data.table", ""), ("r-cran-d.ta", "no package r-cran-d.ta")]
)
def test_an_r_package_that_debian_lacks_is_not_taken_for_a_pattern(tmp_path: Path, wanted: str, told: str):
    dockerfile = (Path(__file__).parents[3] / "backends/r/Dockerfile").read_text()
    (step,) = [
        one for one in re.split(r"^(?=[A-Z]+ )", dockerfile, flags=re.MULTILINE) if "$MODEL_PACKAGES;" in one
    ]
    for program, does in (
        ("apt-get", f'echo "$@" >>{tmp_path}/asked'),
        ("apt-cache", "echo r-cran-data.table; echo r-cran-data.table.extra; echo r-cran-dxta"),
        ("rm", ":"),
        ("useradd", ":"),
    ):
        (tmp_path / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / program).chmod(0o755)
    commands = step.removeprefix("RUN ")
    done = subprocess.run(
        ["/bin/sh", "-c", commands], env={"PATH": str(tmp_path), "MODEL_PACKAGES": wanted},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    asked = (tmp_path / "asked").read_text()
    assert (done.returncode, told in done.stderr) == (bool(told), True), done
    assert (wanted in asked) == (not told), asked


def test_julia_has_a_library_too(folder: Path):
    settings = folder / "backend.toml"
    settings.write_text(settings.read_text().replace('"python"', '"julia"'))
    (folder / "Project.toml").write_text("[deps]\n")
    files = context(folder)
    assert {"Dockerfile", "bin/serve", "src/ChipsBackend.jl", "Project.toml", "model/Project.toml"} <= set(
        files
    )
    assert files[".dockerignore"].endswith(b"!model/\n")
    assert files["Dockerfile"].endswith(b"ENV JULIA_PROJECT=/opt/backend/model\n")
    with pytest.raises(FolderError, match="make setup"):
        BackendFolder(folder).command("python")
    (folder / "Manifest.toml").write_text("")
    shell, script = BackendFolder(folder).command("python")
    assert (shell, Path(script).name, Path(script).exists()) == ("sh", "serve", True)
    assert BackendFolder(folder).environment() == {"JULIA_PROJECT": str(folder)}
    (folder / "predict.jl").write_text("")
    assert b"ENV CHIPS_PREDICT=/opt/backend/model/predict.jl\n" in context(folder)["Dockerfile"]
    assert BackendFolder(folder).environment()["CHIPS_PREDICT"] == str(folder / "predict.jl")
    (folder / "src").mkdir()
    (folder / "src/ChipsBackend.jl").write_text("")
    assert BackendFolder(folder).environment() == {}, "a folder that contains the library is left alone"


def test_a_dockerfile_of_a_person_is_left_alone(folder: Path):
    (folder / "Dockerfile").write_text("FROM scratch\n")
    assert context(folder)["Dockerfile"] == b"FROM scratch\n"
    assert "chips_backend/app.py" not in context(folder)


def test_a_folder_that_contains_the_library_is_left_alone(folder: Path):
    (folder / "chips_backend").mkdir()
    (folder / "chips_backend/predict.py").write_text("")
    assert set(context(folder)) == {
        "backend.toml",
        "chips_backend/predict.py",
        "features/text.py",
        "requirements.txt",
    }
    assert BackendFolder(folder).environment() == {}


def test_how_it_runs_here(folder: Path):
    assert BackendFolder(folder).command("/venv/bin/python") == ["/venv/bin/python", "-m", "chips_backend"]
    settings = folder / "backend.toml"
    settings.write_text(settings.read_text() + 'command = ["python", "serve.py"]\n')
    assert BackendFolder(folder).command("/venv/bin/python") == ["/venv/bin/python", "serve.py"]
    settings.write_text('model = "churn"\nversion = "1"\nartifact = "trained"\n')
    with pytest.raises(FolderError, match='language = "python"'):
        BackendFolder(folder).command("python")


def test_what_describes_the_model_is_found_next_to_it(folder: Path):
    assert BackendFolder(folder).signature_or_samples_file("samples") is None
    (folder / "trained/samples.json").write_text("[]")
    assert BackendFolder(folder).signature_or_samples_file("samples") == folder / "trained/samples.json"
