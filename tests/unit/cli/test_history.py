"""`chips history`, `rollback` and `watch`: who changed what, and how to undo it."""

import json
import signal

import pytest

from tests.patience import patience
from tests.unit.cli.shell import Shell


@pytest.fixture
def three_revisions(shell: Shell) -> Shell:
    shell.register("wine", "1", "--owner", "ana", "--by", "ana", "--reason", "first")
    shell.register("wine", "2", "--by", "bea")
    shell.ok("traffic", "wine", "1=50", "2=50", "--force", "--reason", "half each")
    return shell


def test_history_says_who_what_when_why_and_the_difference(three_revisions: Shell):
    ended = three_revisions.ok("history", "wine")
    lines = ended.out.splitlines()
    assert lines[0].startswith("changed   models/wine revision 3, generation 3, 20")
    assert lines[0].endswith("by ana: half each; forced: version 2: it was never verified")
    assert "traffic.1: 100 → 50" in ended.out
    assert "by bea" in ended.out
    assert "created   models/wine revision 1" in ended.out
    found = three_revisions.ok("history", "wine", "--json", "--limit", "2").json()
    assert [(change["revision"], change["reason"]) for change in found] == [
        (3, "half each; forced: version 2: it was never verified"),
        (2, ""),
    ]


def test_history_of_everything_shows_no_digest_of_a_key_in_full(shell: Shell):
    key = shell.ok("keys", "create", "app").out.strip()
    shell.register("wine")
    out = shell.ok("history").out
    assert "models/wine" in out
    assert "keys/" in out
    assert key not in out
    assert max(len(word) for word in out.split() if word.startswith("keys/")) == len("keys/") + 12
    assert "models/" not in shell.ok("history", "--kind", "keys").out


def test_history_of_nothing(shell: Shell):
    assert "no changes yet" in shell.ok("history").out
    assert 'nothing is known of "wine"' in shell.ok("history", "wine").out
    assert shell.ok("history", "--json").json() == []


def test_rollback_to_the_revision_before(three_revisions: Shell):
    ended = three_revisions.ok("rollback", "wine", "--yes", "--by", "cy")
    assert "back to revision 2" in ended.out
    assert "traffic.1: 50 → 100" in ended.out
    model = three_revisions.model()
    assert model["traffic"] == {"1": 100, "2": 0}
    assert model["revision"] == 4
    assert model["changed"]["by"] == "cy"
    assert model["changed"]["reason"] == "rollback to revision 2"


def test_rollback_to_a_revision_and_forth_again(three_revisions: Shell):
    three_revisions.ok("rollback", "wine", "--to", "1", "--yes")
    assert [backend["version"] for backend in three_revisions.model()["backends"]] == ["1"]
    three_revisions.ok("rollback", "wine", "--to", "3", "--yes")
    assert three_revisions.model()["traffic"] == {"1": 50, "2": 50}
    ended = three_revisions.ok("rollback", "wine", "--to", "3", "--yes")
    assert "nothing to change" in ended.out
    assert three_revisions.model()["revision"] == 5


def test_rollback_brings_a_deregistered_model_back(three_revisions: Shell):
    three_revisions.ok("deregister", "wine", "--yes")
    assert three_revisions("show", "wine").code == 65
    three_revisions.ok("rollback", "wine", "--yes")
    assert three_revisions.model()["traffic"] == {"1": 50, "2": 50}
    three_revisions.ok("rollback", "wine", "--to", "4", "--yes")
    assert three_revisions("show", "wine").code == 65


def test_a_rollback_that_is_only_looked_at(three_revisions: Shell):
    ended = three_revisions.ok("rollback", "wine", "--dry-run", "--json").json()
    assert ended["written"] is False
    assert ended["changes"]
    assert three_revisions.model()["revision"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["wine"], 64, "must be confirmed"),
        (["beer", "--yes"], 65, 'nothing is known of "beer"'),
        (["wine", "--to", "9", "--yes"], 65, "it has 1 to 3"),
        (["wine", "--to", "0", "--yes"], 64, "greater than or equal to 1"),
    ],
)
def test_a_rollback_that_cannot_be(three_revisions: Shell, arguments: list[str], code: int, says: str):
    ended = three_revisions("rollback", *arguments)
    assert ended.code == code
    assert says in ended.err
    assert three_revisions.model()["revision"] == 3


def test_watch_tells_each_change_as_it_happens(shell: Shell):
    process = shell.start_watching()
    assert process.stdout is not None
    shell.ok("disable", "wine")
    change = json.loads(process.stdout.readline())
    assert (change["name"], change["after"]["enabled"]) == ("wine", False)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=patience(30))
    assert process.returncode == 130
    assert "Traceback" not in err
