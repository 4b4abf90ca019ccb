"""The search for secrets finds what it is for, and nothing in this repository."""

from pathlib import Path

import pytest

from gateway.core.api_keys import make_key
from tests.house.secrets import files, main, secrets_in


def test_nothing_secret_is_in_the_repository(capsys: pytest.CaptureFixture[str]):
    assert main() == 0, capsys.readouterr().out


def test_all_files_are_looked_at_also_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = set(files())
    assert {"pyproject.toml", "gateway/core/api_keys.py", ".github/workflows/check.yaml"} <= found
    assert not any(name.startswith((".git/", ".venv/")) or name.endswith(".pyc") for name in found)


def test_a_real_key_is_told_from_an_example():
    assert list(secrets_in("x\nKEY=" + make_key())) == [(2, "an API key of this gateway")]
    assert list(secrets_in("KEY=chips_" + "a" * 38)) == []


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN PRIVATE" + " KEY-----\n" + "A" * 64,
        "AIza" + "b" * 35,
        "AKIA" + "B" * 16,
        "ghp_" + "c" * 36,
        "eyJ" + "a" * 30 + ".eyJ" + "b" * 30 + "." + "c" * 60,
    ],
)
def test_other_secrets(text: str):
    assert len(list(secrets_in(text))) == 1
