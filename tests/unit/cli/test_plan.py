"""`chips plan` counts what is registered and published, and says where an instance's memory cannot hold it."""

from pathlib import Path

import pytest

from tests.unit.cli.shell import Shell

LOAD = ("--rps", "5", "--latency", "40ms")


@pytest.fixture
def large(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A model of 1.25 GiB, of which the disk holds next to nothing."""
    monkeypatch.setenv("CHIPS_ARTIFACTS", str(tmp_path / "store"))
    model = tmp_path / "model.onnx"
    with model.open("wb") as stream:
        stream.write(b"x")
        stream.truncate(1 << 20)
    shell.ok("publish", str(model), "--model", "forest", "--version", "1", "--no-try")
    manifest = tmp_path / "store/forest/1/manifest.json"
    manifest.write_text(manifest.read_text().replace(str(1 << 20), str(5 << 28)))
    shell.register("forest", "1", "--artifact", str(tmp_path / "store/forest/1"))
    return shell


def test_the_registered_artifact_counts(large: Shell):
    told = large.ok("plan", "forest", *LOAD, "--json").json()
    assert told["artifact_gib"] == 1.25
    assert "1 GiB is too little for an artifact of 1.25 GiB" in told["warnings"][0]
    assert "--memory 3Gi" in told["warnings"][0]
    assert "warning" in large.ok("plan", "forest", *LOAD).out
    assert large.ok("plan", "forest", *LOAD, "--memory", "4Gi", "--json").json()["warnings"] == []


def test_the_registered_size_counts(large: Shell):
    large.register("forest", "1", "--cpu", "2", "--memory", "4Gi", "--min-instances", "3")
    told = large.ok("plan", "forest", *LOAD, "--json").json()
    assert (told["cpu"], told["memory_gib"], told["min_instances"]) == (2, 4, 3)
    assert told["warnings"] == []
    assert told["parts"]["kept warm"] > 0
    large.register("forest", "1", "--memory", "2Gi")
    told = large.ok("plan", "forest", *LOAD, "--json").json()
    assert (told["cpu"], told["min_instances"]) == (2, 3), "what is not said stays"
    assert "2 GiB is too little for an artifact of 1.25 GiB" in told["warnings"][0]
    assert large.ok("plan", "forest", *LOAD, "--memory", "4Gi", "--json").json()["warnings"] == []


@pytest.mark.parametrize("size", [("--memory", "5000Gi"), ("--min-instances", "10001")])
def test_a_size_that_cannot_be_right_is_not_registered(large: Shell, size: tuple[str, str]):
    words = ("register", "forest", "http://127.0.0.1:9/forest-1", "--no-probe", "--force", "--version", "1")
    assert large(*words, *size).code == 65


def test_what_is_said_wins(large: Shell):
    told = large.ok("plan", "forest", *LOAD, "--artifact", "512Mi", "--json").json()
    assert (told["artifact_gib"], "0.50 GiB" in told["warnings"][0]) == (0.5, True)


def test_of_a_model_that_nobody_knows_nothing_is_warned(shell: Shell):
    told = shell.ok("plan", "nobody", *LOAD, "--json").json()
    assert (told["artifact_gib"], told["warnings"]) == (0.0977, [])
