"""The flags of `python -m gateway`."""

from pathlib import Path

import pytest

from gateway import serve as module
from gateway.serve import EX_CONFIG, EX_USAGE, parse_flags, serve


@pytest.fixture(autouse=True)
def nothing_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    monkeypatch.chdir(tmp_path)
    served: list[object] = []

    def run(settings: object) -> int:
        served.append(settings)
        return 0

    monkeypatch.setattr(module, "run", run)
    return served


@pytest.mark.parametrize(
    ("arguments", "config", "flags"),
    [
        ([], None, {}),
        (["--server.port=80"], None, {"server.port": "80"}),
        (["--server.port", "80", "--log.level=debug"], None, {"server.port": "80", "log.level": "debug"}),
        (["--server.port=80", "--server.port=81"], None, {"server.port": "81"}),
        (["--registry=sqlite:///a=b.db"], None, {"registry": "sqlite:///a=b.db"}),
        (["--artifacts="], None, {"artifacts": ""}),
        (["--config", "a.toml", "--server.port=80"], Path("a.toml"), {"server.port": "80"}),
        (["--server.host", "--weird"], None, {"server.host": "--weird"}),
    ],
)
def test_flags(arguments: list[str], config: Path | None, flags: dict[str, str]):
    assert parse_flags(arguments) == (config, flags)


@pytest.mark.parametrize(
    "arguments", [["serve"], ["-p", "80"], ["--server.port"], ["--server.port=80", "81"], [""]]
)
def test_wrong_flags_end_with_64_and_show_how_it_is_used(
    arguments: list[str], nothing_is_served: list[object], capsys: pytest.CaptureFixture[str]
):
    assert serve(arguments) == EX_USAGE
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Usage: python -m gateway" in said
    assert nothing_is_served == []


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_ends_with_0(flag: str, nothing_is_served: list[object], capsys: pytest.CaptureFixture[str]):
    assert serve(["--server.port=80", flag]) == 0
    assert "Exit codes" in capsys.readouterr().out
    assert nothing_is_served == []


def test_wrong_settings_end_with_78_and_list_everything(
    nothing_is_served: list[object], capsys: pytest.CaptureFixture[str]
):
    assert serve(["--server.port=many", "--log.levle=info"]) == EX_CONFIG
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert "did you mean log.level?" in said
    assert nothing_is_served == []


def test_good_flags_are_served(nothing_is_served: list[object]):
    assert serve(["--server.port=81"]) == 0
    (settings,) = nothing_is_served
    assert settings.server.port == 81  # type: ignore[attr-defined]
