"""`chips audit`: the check of the history, what served at a time, and the exports."""

import csv
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.cli.support import console
from tests.unit.audit.test_anchors import write_key
from tests.unit.cli.shell import Shell


@pytest.fixture
def anchored(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("CHIPS_AUDIT__SECOND_PLACE", str(tmp_path / "kept"))
    monkeypatch.setenv("CHIPS_AUDIT__SIGNING_KEY", str(write_key(tmp_path / "head.pem")))
    return shell


def tamper(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "registry.db")) as db, db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute(statement)


def test_a_good_history_is_intact(shell: Shell):
    shell.register("wine")
    ended = shell.ok("audit", "--verify")
    assert "1 entries, 1 in the chain, generation 1" in ended.out
    assert "intact" in ended.out
    assert "set audit.second_place" in ended.out
    facts = shell.ok("audit", "--verify", "--json").json()
    assert (facts["findings"], facts["chained"], facts["second_place"]) == ([], 1, "")


def test_an_edited_entry_is_found(shell: Shell, tmp_path: Path):
    shell.register("wine")
    tamper(tmp_path, "UPDATE history SET author = 'mallory'")
    ended = shell("audit", "--verify")
    assert ended.code == 1
    assert "entry 1 (models/wine, generation 1) is not as it was written" in ended.out
    assert "intact" not in ended.out
    assert shell("audit", "--verify", "--json").json()["findings"][0]["what"] == "edited"


def test_each_write_of_a_command_keeps_the_head(anchored: Shell, tmp_path: Path):
    anchored.register("wine", "1")
    anchored.register("wine", "2")
    kept = sorted(path.name for path in (tmp_path / "kept").rglob("*.json"))
    assert [name[:12] for name in kept] == ["000000000001", "000000000002"]
    ended = anchored.ok("audit", "--verify")
    assert f"up to entry 2 by 2 heads in {tmp_path}/kept" in ended.out
    # Somebody takes the newest change back without a trace in the database.
    first = anchored.ok("history", "--json").json()[1]
    assert first["generation"] == 1
    with closing(sqlite3.connect(tmp_path / "registry.db")) as db:
        digest, after = db.execute("SELECT digest, after FROM history WHERE sequence = 1").fetchone()
    tamper(tmp_path, "DELETE FROM history WHERE sequence = 2")
    tamper(tmp_path, f"UPDATE registry SET generation = 1, sequence = 1, digest = '{digest}'")  # noqa: S608
    with closing(sqlite3.connect(tmp_path / "registry.db")) as db, db:
        db.execute("UPDATE documents SET revision = 1, body = ?", (after,))
    ended = anchored("audit", "--verify")
    assert ended.code == 1
    assert "the history ends with entry 1; on 20" in ended.out
    # It was a restore after all: that is noted in the second place, for everybody to see.
    assert anchored("audit", "--restored").code == console.EX_USAGE
    noted = anchored.ok("audit", "--restored", "--reason", "the disk broke", "--by", "ana")
    assert "restored to entry 1; 1 kept heads are lost" in noted.out
    ended = anchored.ok("audit", "--verify")
    assert "by ana, 1 kept heads lost: the disk broke" in ended.out
    other = ("--registry", f"sqlite://{tmp_path}/other.db")  # it shares the second place
    anchored.ok("register", "beer", "http://127.0.0.1:9", "--version", "1", "--no-probe", "--force", *other)
    assert "the disk broke" not in anchored.ok("audit", "--verify", *other).out


def test_another_registry_in_the_place_of_this_one_is_found(
    anchored: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A new one has an id of its own, and writers keep its heads as they would another environment's."""
    anchored.register("wine", "1")
    registry_id = anchored.ok("audit", "--verify", "--json").json()["head"]["registry_id"]
    monkeypatch.setenv("CHIPS_AUDIT__REGISTRY_ID", registry_id)
    ended = anchored.ok("audit", "--verify")
    assert registry_id in ended.out
    assert "are kept there too" not in ended.out
    for path in tmp_path.glob("registry.db*"):
        path.unlink()
    anchored.register("wine", "1")
    ended = anchored("audit", "--verify")
    assert ended.code == 1
    assert f"not {registry_id} as audit.registry_id says" in ended.out
    monkeypatch.delenv("CHIPS_AUDIT__REGISTRY_ID")
    assert f"heads of {registry_id} are kept there too" in anchored.ok("audit", "--verify").out
    monkeypatch.delenv("CHIPS_AUDIT__SECOND_PLACE")
    monkeypatch.delenv("CHIPS_AUDIT__SIGNING_KEY")
    monkeypatch.setenv("CHIPS_AUDIT__REGISTRY_ID", registry_id)
    assert anchored("audit", "--verify").code == 1


def test_a_second_place_that_cannot_be_written_is_told_and_loses_no_write(anchored: Shell, tmp_path: Path):
    (tmp_path / "kept").write_text("")
    ended = anchored("register", "wine", "http://127.0.0.1:9", "--no-probe", "--force", "--version", "1")
    assert ended.code == 0
    assert "chips audit --anchor" in ended.err
    assert anchored("audit", "--anchor").code == console.EX_UNAVAILABLE
    (tmp_path / "kept").unlink()
    assert "the head after entry 1" in anchored.ok("audit", "--anchor").out


def test_keys_that_are_not_trusted_do_not_count(
    anchored: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    anchored.register("wine")
    write_key(tmp_path / "other.pem", Ed25519PrivateKey.generate())
    monkeypatch.setenv("CHIPS_AUDIT__TRUSTED_KEYS", str(tmp_path / "other.pub"))
    ended = anchored("audit", "--verify")
    assert ended.code == 1
    assert "none of the keys in audit.trusted_keys has signed it" in ended.out
    monkeypatch.setenv("CHIPS_AUDIT__TRUSTED_KEYS", str(tmp_path / "head.pub"))
    monkeypatch.delenv("CHIPS_AUDIT__SIGNING_KEY")
    assert anchored("audit", "--verify").code == 0, "an auditor needs no private key"
    assert anchored("audit", "--anchor").code == console.EX_CONFIG


def test_what_served_at_a_time(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def now(text: str) -> None:
        monkeypatch.setattr("gateway.registry.sqlite_write.now_rfc3339", lambda: text)

    now("2026-11-20T10:00:00.000Z")
    shell.register("wine", "1", "--by", "ana", "--reason", "first", "--artifact", "gs://a/wine/1")
    now("2026-11-20T11:00:00.000Z")
    shell.register("wine", "2", "--by", "bea")
    now("2026-11-20T12:00:00.000Z")
    shell.ok("traffic", "wine", "1=90", "2=10", "--force", "--by", "cy", "--reason", "canary")
    now("2026-11-20T13:00:00.000Z")
    shell.ok("deregister", "wine", "--yes")

    ended = shell.ok("audit", "wine", "--at", "2026-11-20T12:30Z")
    lines = ended.out.splitlines()
    assert lines[0] == "wine      at 2026-11-20T12:30Z, revision 3"
    assert (
        lines[1]
        == "entry     3, 2026-11-20T12:00:00.000Z by cy: canary; forced: version 2: it was never verified"
    )
    assert lines[2].startswith("v 1       90 %  http://")
    assert "artifact gs://a/wine/1" in ended.out
    assert "as such since entry 1, 2026-11-20T10:00:00.000Z by ana" in ended.out
    assert "as such since entry 2, 2026-11-20T11:00:00.000Z by bea" in ended.out
    assert "v 2" not in shell.ok("audit", "wine", "--at", "2026-11-20T11:30Z").out
    assert "deregistered" in shell.ok("audit", "wine", "--at", "2026-11-20T14:00+01:00").out
    assert "was not registered" in shell.ok("audit", "wine", "--at", "2026-11-20T09:59Z").out
    assert "no model was registered" in shell.ok("audit", "--at", "2026-11-20T09:59Z").out
    (state,) = shell.ok("audit", "--at", "2026-11-20T12:30Z", "--json").json()
    assert [(one["version"], one["percent"]) for one in state["served"]] == [("1", 90), ("2", 10)]
    for wrong in ("yesterday", "2026-11-20T10:00"):
        assert "2026-11-20T10:00Z" in shell("audit", "--at", wrong).err


def test_on_what_evidence_it_served(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def now(text: str) -> None:
        monkeypatch.setattr("gateway.registry.sqlite_write.now_rfc3339", lambda: text)

    now("2026-11-20T10:00:00.000Z")
    shell.register("wine", "1")
    now("2026-11-20T11:00:00.000Z")
    shell.verified("wine", "1")
    now("2026-11-20T12:00:00.000Z")
    shell.ok("register", "wine", "http://127.0.0.1:9/other", "--version", "1", "--no-probe", "--force")
    assert "evidence" not in shell.ok("audit", "wine", "--at", "2026-11-20T10:30Z").out
    (line,) = [
        one for one in shell.ok("audit", "--at", "2026-11-20T11:30Z").out.splitlines() if "evidence" in one
    ]
    assert line.strip().startswith("evidence verify passed: ")
    assert "(entry 2, 2026-11-20T11:00:00.000Z by " in line
    (state,) = shell.ok("audit", "wine", "--at", "2026-11-20T12:30Z", "--json").json()
    (record,) = state["served"][0]["evidence"]
    assert (record["sort"], record["passed"], record["sequence"]) == ("verify", True, 2)
    assert record["problem"].startswith("it is about http"), "the backend that served then is another one"


@pytest.mark.parametrize(
    "words", [[], ["--verify", "--anchor"], ["wine"], ["wine", "--verify"], ["--anchor"]]
)
def test_it_says_how_it_is_used(shell: Shell, words: list[str]):
    ended = shell("audit", *words)
    assert ended.code == console.EX_USAGE
    assert "hint:" in ended.err


@pytest.mark.parametrize("at", ["soon", "2026-11-20T10:00:00"])
def test_an_entry_without_a_time_is_told(shell: Shell, tmp_path: Path, at: str):
    shell.register("wine")
    tamper(tmp_path, f"UPDATE history SET at = '{at}'")  # noqa: S608
    ended = shell("audit", "--at", "2999-01-01T00:00Z")
    assert ended.code == console.EX_UNAVAILABLE
    assert "entry 1 of the history: " in ended.err
    assert "chips audit --verify" in ended.err


def test_the_exports(shell: Shell, tmp_path: Path):
    shell.register("wine", "1", "--owner", "<b>ana</b>", "--reason", "=cmd()")
    shell.register("wine", "2")
    for name in ("history.json", "history.csv", "history.html"):
        assert "2 entries" in shell.ok("audit", "--export", str(tmp_path / name)).out
    content: dict[str, Any] = json.loads((tmp_path / "history.json").read_text())
    previous = content["head"]["digest"]
    for entry in content["entries"]:  # as an auditor would check it, with nothing of ours
        canonical = entry["canonical"]
        assert hashlib.sha256(rfc8785.dumps(canonical)).hexdigest() == entry["digest"] == previous
        assert hashlib.sha256(entry["after"].encode()).hexdigest() == canonical["after_sha256"]
        previous = canonical["previous"]
    assert previous == ""
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequence"] for row in rows] == ["2", "1"]
    assert rows[1]["reason"] == "'=cmd(); forced: version 1: it was never verified"
    page = (tmp_path / "history.html").read_text()
    assert "<b>ana</b>" not in page
    assert "&lt;b&gt;ana&lt;/b&gt;" in page
    assert "Nothing was found" in page
    shell.ok("disable", "wine", "--by", "bea", "--reason", "by \u202eana")
    shell.ok("audit", "--export", str(tmp_path / "history.html"))
    page = (tmp_path / "history.html").read_text()
    assert "by \\u202eana" in page, "no character turns around what stands next to it"
    assert shell("audit", "--export", str(tmp_path / "history.txt")).code == console.EX_USAGE
    assert shell("audit", "--export", str(tmp_path / "no" / "history.csv")).code == console.EX_DATAERR
