"""A version that nothing has verified gets no traffic from any command, unless it is forced; then the history says so."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.shell import Shell

ASK_NOBODY = ("--no-probe", "--version")
NEVER = "may not get traffic: it was never verified"


def _register(shell: Shell, version: str, *options: str, path: str = "") -> tuple[int, str]:
    url = f"http://127.0.0.1:9/{path or f'wine-{version}'}"
    ended = shell("register", "wine", url, *ASK_NOBODY, version, *options)
    return ended.code, ended.err


@pytest.fixture
def wine(shell: Shell) -> Shell:
    """Version 3 takes all traffic, and is verified."""
    shell.verified("wine", "3")
    assert _register(shell, "3") == (0, "")
    return shell


def test_a_first_version_that_nobody_asked_is_refused_or_forced(shell: Shell):
    code, told = _register(shell, "3")
    assert code == 65
    assert NEVER in told
    assert "--force" in told
    assert shell.ok("models", "--json").json() == []
    assert _register(shell, "3", "--force", "--reason", "no way there from here")[0] == 0
    assert (
        "no way there from here; forced: version 3: it was never verified" in shell.ok("history", "wine").out
    )


def test_a_further_version_is_registered_but_gets_no_traffic(wine: Shell):
    assert NEVER in _register(wine, "4", "--traffic", "10")[1]
    assert _register(wine, "4") == (0, "")
    assert wine.model()["traffic"] == {"3": 100, "4": 0}
    assert NEVER in wine("traffic", "wine", "3=90", "4=10").err
    assert NEVER in wine("canary", "wine", "4").err
    assert _register(wine, "4", "--traffic", "10", "--force")[0] == 0
    assert wine.model()["traffic"] == {"3": 90, "4": 10}


@pytest.mark.parametrize("change", ["address", "path"])
def test_what_takes_traffic_is_not_replaced_by_what_nobody_verified(wine: Shell, change: str):
    options = ("--path", "/other") if change == "path" else ()
    before = wine.model()
    code, told = _register(wine, "3", *options, path="other" if change == "address" else "")
    assert code == 65
    assert "its verification does not count: it is about http://127.0.0.1:9/wine-3/predict" in told
    assert wine.model() == before


def test_other_changes_of_a_version_with_traffic_need_no_verification(shell: Shell):
    assert _register(shell, "3", "--force")[0] == 0
    assert _register(shell, "3", "--timeout", "5") == (0, "")
    assert shell.model()["policy"]["timeout_s"] == 5


def test_a_dry_run_is_refused_as_the_command_would_be(shell: Shell):
    code, told = _register(shell, "3", "--dry-run")
    assert code == 65
    assert NEVER in told


def test_a_rollback_gives_back_what_was_there(wine: Shell):
    assert _register(wine, "4", "--traffic", "10", "--force")[0] == 0
    wine.ok("traffic", "wine", "3=100")
    wine.ok("rollback", "wine", "--yes")
    assert wine.model()["traffic"] == {"3": 90, "4": 10}


def _declared(shell: Shell, folder: Path, *changes: tuple[str, str]) -> str:
    """The registry's own export with changes, as a file in a repository has it."""
    path = folder / "all.yaml"
    shell.ok("export", str(path))
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return str(path)


def test_an_import_that_shifts_traffic_is_refused_or_forced(wine: Shell, tmp_path: Path):
    assert _register(wine, "4") == (0, "")
    wine.ok("traffic", "wine", "3=90", "4=10", "--force")
    file = _declared(wine, tmp_path)
    wine.ok("traffic", "wine", "3=100")
    assert NEVER in wine("import", file, "--yes").err
    assert wine.model()["traffic"] == {"3": 100, "4": 0}
    wine.ok("import", file, "--yes", "--force", "--reason", "as declared")
    assert wine.model()["traffic"] == {"3": 90, "4": 10}
    assert "as declared; forced: version 4: it was never verified" in wine.ok("history", "wine").out


def test_an_import_that_moves_what_takes_traffic_is_refused(wine: Shell, tmp_path: Path):
    file = _declared(wine, tmp_path, ("http://127.0.0.1:9/wine-3", "http://127.0.0.1:9/other"))
    assert "its verification does not count" in wine("import", file, "--yes").err


def test_a_model_that_is_restored_serves_and_the_history_says_what_nobody_verified(
    wine: Shell, tmp_path: Path
):
    file = _declared(wine, tmp_path)
    other = f"sqlite://{tmp_path}/other.db"
    wine.ok("import", file, "--yes", "--registry", other)
    assert "version 3: it was never verified" in wine.ok("history", "wine", "--registry", other).out


def test_a_registry_with_many_models_is_restored_everywhere(shell: Shell, tmp_path: Path):
    """The reason names some of them: a store takes no reason of any length, and Firestore refused the whole restore."""
    backend = {"version": "4", "url": "http://127.0.0.1:9"}
    models = {f"wine-{number:03}": {"backends": [backend], "traffic": {"4": 100}} for number in range(300)}
    (tmp_path / "all.yaml").write_text(json.dumps({"chips": 1, "models": models}))
    shell.ok("import", "all.yaml", "--yes")
    (change, *_) = shell.ok("history", "--json").json()
    assert "forced: version 4: it was never verified (wine-000)" in change["reason"]
    assert change["reason"].endswith("forced: 280 more models")
    assert len(change["reason"]) < 2000
