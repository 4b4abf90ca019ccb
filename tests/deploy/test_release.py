"""What is released: the same bytes twice, everything by digest, and a gateway that runs from just that."""

import importlib.util
import json
import re
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.conftest import require
from tests.house import release
from tests.patience import patience

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("project", release.PROJECTS, ids=lambda project: project.name)
class TestLock:
    def test_each_requirement_has_a_digest(self, project: release.Project):
        entries = re.split(r"\n(?=[A-Za-z0-9])", project.lock.read_text(encoding="utf-8").split("\n", 1)[1])
        assert len(entries) > 20
        assert not [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry]

    def test_it_has_the_versions_that_the_tests_run_with(self, project: release.Project):
        tested = {
            canonical(name): version
            for name, version in NAME.findall((ROOT / "constraints.txt").read_text(encoding="utf-8"))
        }
        locked = {canonical(name): version for name, version in NAME.findall(project.lock.read_text("utf-8"))}
        both = tested.keys() & locked.keys()
        assert len(both) > 20
        assert {name: locked[name] for name in both} == {name: tested[name] for name in both}, (
            "run: make lock"
        )

    def test_it_covers_what_the_project_asks_for(self, project: release.Project):
        import tomllib

        described = tomllib.loads((project.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = {canonical(re.split(r"[^A-Za-z0-9._-]", line)[0]) for line in described["dependencies"]}
        locked = {canonical(name) for name, _ in NAME.findall(project.lock.read_text("utf-8"))}
        assert asked <= locked, "run: make lock"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = importlib.util.find_spec("cyclonedx_py") is not None
    require("release", available=there, why="cyclonedx-bom is not installed: make release installs it")
    out: Path = tmp_path_factory.mktemp("release")
    release.main(out)
    return out


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestRelease:
    def test_the_sums_are_right_and_complete(self, built: Path):
        lines = [line.split() for line in (built / "SHA256SUMS").read_text().splitlines()]
        sums = {name: digest for digest, name in lines}
        assert set(sums) == {path.name for path in built.iterdir()} - {"SHA256SUMS"}
        assert all(release.digest(built / name) == wanted for name, wanted in sums.items())

    def test_a_second_build_has_the_same_bytes(self, built: Path, tmp_path: Path):
        release.main(tmp_path)
        assert (tmp_path / "SHA256SUMS").read_text() == (built / "SHA256SUMS").read_text()

    def test_the_components_are_those_of_the_lock(self, built: Path):
        for project in release.PROJECTS:
            listed = json.loads((built / f"{project.name}.cdx.json").read_text())
            assert listed["bomFormat"] == "CycloneDX"
            named = {canonical(one["name"]): one["version"] for one in listed["components"]}
            locked = {
                canonical(name): version for name, version in NAME.findall(project.lock.read_text("utf-8"))
            }
            assert named == locked

    def test_a_gateway_runs_from_what_pip_checked_by_digest(self, built: Path, tmp_path: Path):
        venv.create(tmp_path / "venv", with_pip=True)
        python = tmp_path / "venv/bin/python"
        installed = subprocess.run(
            [
                python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
                "--find-links", built, "-r", built / "chips-gateway.requirements.txt",
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert installed.returncode == 0, installed.stderr
        serving = subprocess.Popen(
            [python, "-m", "gateway", "--server.port=0", f"--registry=sqlite:///{tmp_path}/registry.db", "--log.format=json"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        try:
            assert serving.stdout is not None
            line = next(line for line in serving.stdout if "listens on" in line)
            found = re.search(r"http://[\w.]+:(\d+)", line)
            assert found, line
            with urllib.request.urlopen(
                f"http://127.0.0.1:{found[1]}/-/live", timeout=patience(30)
            ) as answer:
                assert answer.status == 200
        finally:
            serving.terminate()
            serving.communicate(timeout=patience(60))
        assert serving.returncode == 0


def test_a_wheel_that_was_changed_is_not_installed(tmp_path: Path):
    wheel = tmp_path / "chips_gateway-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"chips-gateway==0.1.0 --hash=sha256:{'0' * 64}\n")
    refused = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--no-index", "--no-deps", "--require-hashes", "--find-links", tmp_path,
            "-r", requirements, "-d", tmp_path / "out",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
