"""`chips traffic` and `chips diff`."""

from pathlib import Path

import pytest

from tests.unit.cli.shell import Shell


def two_versions(shell: Shell) -> None:
    shell.register("wine", "3")
    shell.register("wine", "4")
    shell.verified("wine", "4")


def test_traffic_is_split_as_asked_and_told(shell: Shell):
    two_versions(shell)
    ended = shell.ok("traffic", "wine", "3=90", "4=10", "--reason", "canary")
    assert "100 % → 90 %" in ended.out
    assert "0 % → 10 %" in ended.out
    assert shell.model()["traffic"] == {"3": 90, "4": 10}
    assert shell.model()["changed"]["reason"] == "canary"


def test_what_is_not_named_takes_nothing(shell: Shell):
    two_versions(shell)
    shell.ok("traffic", "wine", "4=100")
    assert shell.model()["traffic"] == {"3": 0, "4": 100}


def test_nothing_is_written_where_nothing_changes_or_in_a_dry_run(shell: Shell):
    two_versions(shell)
    revision = shell.model()["revision"]
    assert "unchanged" in shell.ok("traffic", "wine", "3=100").out
    assert "nothing was written" in shell.ok("traffic", "wine", "4=100", "--dry-run").out
    assert shell.model()["revision"] == revision


def slots_of(shell: Shell) -> dict[str, int]:
    """How many slots each version has."""
    return {v: int(bitmap, 16).bit_count() for v, bitmap in shell.model()["sticky"]["slots"].items()}


def test_shares_stick_as_asked_until_they_are_told_not_to(shell: Shell):
    two_versions(shell)
    assert "header:x-user" in shell.ok("traffic", "wine", "3=90", "4=10", "--sticky", "header:X-User").out
    seed = shell.model()["sticky"]["seed"]
    assert len(seed) == 32
    assert slots_of(shell) == {"3": 90, "4": 10}
    assert shell.ok("traffic", "wine", "--json").json()["sticky"] == "header:x-user"
    assert "header:x-user" in shell.ok("traffic", "wine").out
    ended = shell.ok("traffic", "wine", "3=50", "4=50", "--json")
    assert ended.json()["sticky"] == "header:x-user", "a further split stays sticky"
    assert slots_of(shell) == {"3": 50, "4": 50}
    assert shell.model()["sticky"]["seed"] == seed
    assert "unchanged" in shell.ok("traffic", "wine", "--sticky", "header:x-user").out
    shell.ok("traffic", "wine", "--sticky", "caller")
    assert shell.model()["traffic"] == {"3": 50, "4": 50}
    assert shell.model()["sticky"]["seed"] != seed, "another kind of value is another experiment"
    shell.ok("traffic", "wine", "--sticky", "off")
    assert "sticky" not in shell.model()
    assert shell.ok("traffic", "wine", "--json").json()["sticky"] is None


def test_slots_follow_each_command_that_moves_traffic(shell: Shell):
    two_versions(shell)
    shell.ok("traffic", "wine", "3=60", "4=40", "--sticky", "caller")
    shell.register("wine", "5", "--traffic", "50")
    assert slots_of(shell) == {"3": 30, "4": 20, "5": 50}
    shell.ok("deregister", "wine", "--version", "5", "--force", "--yes")
    assert slots_of(shell) == {"3": 60, "4": 40}
    before = shell.model()["sticky"]
    shell.ok("traffic", "wine", "4=100")
    shell.ok("rollback", "wine", "--yes")
    assert shell.model()["sticky"] == before, "everybody is back where they were"


@pytest.mark.parametrize(
    "by", ["user", "header:", "header:Authorization", "header:cookie", "field:", "key:1"]
)
def test_what_shares_cannot_stick_to_changes_nothing(shell: Shell, by: str):
    two_versions(shell)
    before = shell.model()
    ended = shell("traffic", "wine", "3=90", "4=10", "--sticky", by)
    assert ended.code == 64, ended
    assert shell.model() == before


@pytest.mark.parametrize(
    ("shares", "code", "told"),
    [
        (("3=90",), 65, "adds up to 90 %"),
        (("3=90", "4=20"), 65, "adds up to 110 %"),
        (("3=90", "5=10"), 65, "no backend"),
        (("3",), 64, "VERSION=PERCENT"),
        (("3=-1",), 64, "VERSION=PERCENT"),
        (("3=1e2",), 64, "VERSION=PERCENT"),
        (("3=50", "3=50"), 64, "twice"),
    ],
)
def test_a_split_that_is_wrong_changes_nothing(shell: Shell, shares: tuple[str, ...], code: int, told: str):
    two_versions(shell)
    before = shell.model()
    ended = shell("traffic", "wine", *shares)
    assert ended.code == code, ended
    assert told in ended.err
    assert shell.model() == before


def test_two_environments_are_compared(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CHIPS_REGISTRY")
    path = tmp_path / "environments.toml"
    path.write_text("".join(f'[{n}]\nregistry = "sqlite://{tmp_path}/{n}.db"\n' for n in ("dev", "prod")))
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(path))
    assert "alike: 0 models" in shell.ok("diff", "dev", "prod").out
    for env in ("dev", "prod"):
        url = f"http://{env}.example"
        shell.ok(
            "--env", env, "register", "wine", url, "--no-probe", "--force", "--version", "3", "--timeout", "5"
        )
    shell.ok("diff", "dev", "prod")
    assert shell("diff", "dev", "prod", "--addresses").code == 1
    shell.ok(
        "--env",
        "dev",
        "register",
        "wine",
        "http://d.example",
        "--no-probe",
        "--force",
        "--version",
        "3",
        "--timeout",
        "9",
    )
    shell.ok(
        "--env", "prod", "register", "beer", "http://d.example", "--no-probe", "--force", "--version", "1"
    )
    ended = shell("diff", "dev", "prod", "--json")
    assert ended.code == 1
    assert ended.json() == {
        "beer": [{"path": "", "dev": None, "prod": "there"}],
        "wine": [{"path": "policy.timeout_s", "dev": 9.0, "prod": 5.0}],
    }
    assert shell("diff", "dev", "nowhere").code == 78


def test_without_a_split_it_shows_the_present_one(shell: Shell):
    two_versions(shell)
    revision = shell.model()["revision"]
    out = shell.ok("traffic", "wine").out
    assert "100 %" in out
    assert "0 %" in out
    assert shell.ok("traffic", "wine", "--json").json() == {
        "model": "wine",
        "traffic": {"3": 100, "4": 0},
        "sticky": None,
    }
    assert shell.model()["revision"] == revision


def test_a_mistyped_model_is_answered_with_the_likely_one(shell: Shell):
    two_versions(shell)
    ended = shell("traffic", "wien")
    assert ended.code == 65
    assert "did you mean wine?" in ended.err
