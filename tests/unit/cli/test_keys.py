"""`chips keys`: shown once, kept as a digest, dead at once when revoked."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.api_keys import digest_key, is_well_formed, key_id, make_key
from gateway.registry.base import KEYS, REVOCATIONS, Document, Put
from gateway.registry.open_by_url import open_registry
from tests.unit.cli.shell import Shell


def documents(shell: Shell, kind: str) -> tuple[Document, ...]:
    async def work() -> tuple[Document, ...]:
        registry = open_registry(shell.registry)
        try:
            return await registry.list(kind)
        finally:
            await registry.close()

    return asyncio.run(work())


def test_standard_output_holds_the_key_and_nothing_else(shell: Shell):
    before = datetime.now(UTC)
    ended = shell.ok(
        "keys", "create", "mobile app", "--models", "wine", "--models", "fraud-*", "--expires", "90d"
    )
    key = ended.out.removesuffix("\n")
    assert is_well_formed(key)
    assert key not in ended.err
    assert key_id(digest_key(key)) in ended.err
    (document,) = documents(shell, KEYS)
    assert document.name == digest_key(key)
    assert key not in str(document)
    assert document.body["label"] == "mobile app"
    assert document.body["models"] == ["wine", "fraud-*"]
    assert document.body["created_by"] == "ana"
    expires = datetime.fromisoformat(document.body["expires"]) - timedelta(days=90)
    assert before - timedelta(minutes=1) < expires <= datetime.now(UTC)


def test_for_a_machine(shell: Shell):
    made = shell.ok("keys", "create", "ci", "--json").json()
    assert is_well_formed(made["key"])
    assert made["id"] == key_id(digest_key(made["key"]))
    assert made["expires"] is None


@pytest.mark.parametrize("pattern", ["[a-z]*", "fraud-[/x]", "[/]"])
def test_a_pattern_is_told_as_it_was_given(shell: Shell, pattern: str):
    ended = shell.ok("keys", "create", "ci", "--models", pattern)
    assert is_well_formed(ended.out.strip())
    assert pattern in ended.err


@pytest.mark.parametrize("pattern", ["", "Wine", "wine,fraud", "a/b", "wine "])
def test_a_pattern_that_no_model_can_match_ends_with_65(shell: Shell, pattern: str):
    ended = shell("keys", "create", "ci", "--models", pattern)
    assert ended.code == 65, ended
    assert documents(shell, KEYS) == ()


@pytest.mark.parametrize(
    ("expires", "code"),
    [
        ("12h", 0),
        ("2999-01-31", 0),
        ("2999-01-31T10:00:00+02:00", 0),
        ("2999-01-31T10:00:00Z", 0),
        ("2020-01-31", 65),
        ("0d", 65),
        ("90", 65),
        ("-1d", 65),
        ("soon", 65),
        ("", 65),
        ("99999999999d", 65),
        ("9999-12-31T23:59:59-12:00", 65),
    ],
)
def test_when_a_key_ends(shell: Shell, expires: str, code: int):
    ended = shell("keys", "create", "ci", "--expires", expires, "--json")
    assert ended.code == code, ended
    if code:
        assert documents(shell, KEYS) == ()
    else:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ended.json()["expires"])


def test_the_list_never_shows_a_key(shell: Shell):
    assert "chips keys create LABEL" in shell.ok("keys", "list").out
    key = shell.ok("keys", "create", "mobile [/app]", "--models", "wine").out.strip()
    revoked = shell.ok("keys", "create", "old").out.strip()
    shell.ok("keys", "revoke", key_id(digest_key(revoked)))
    out = shell.ok("keys", "list").out
    assert key not in out
    assert "mobile [/app]" in out
    listed = shell.ok("keys", "list", "--json").json()
    assert {entry["label"]: entry["state"] for entry in listed} == {
        "mobile [/app]": "valid",
        "old": "revoked",
    }
    assert key not in str(listed)


def test_the_list_shows_rights_limits_and_dates_whole_at_80_columns(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    networks = ("--network", "192.0.2.0/28", "--network", "198.51.100.0/24")
    limits = ("--rate", "20", "--burst", "50", "--per-day", "100000", "--max-in-flight", "4")
    models = ("--models", "wine-*", "--models", "a-model-with-a-name-that-is-long-indeed")
    shell.ok("keys", "create", "an application with a long label", *models, *limits, *networks)
    out = shell.ok("keys", "list").out
    told = " ".join(out.split())
    for text in (
        "an application with a long label valid",
        "score, metadata: wine-*, a-model-with-a-name-that-is-long-indeed",
        "20 requests per second (burst 50), 4 at once, 100000 per day",
        "from 192.0.2.0/28, 198.51.100.0/24",
        "never expires, never used",
    ):
        assert text in told
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80


def test_a_mistyped_id_and_a_label_are_answered_with_the_id(shell: Shell):
    shell.ok("keys", "create", "mobile app")
    (entry,) = shell.ok("keys", "list", "--json").json()
    wrong = entry["id"][:-1] + ("0" if entry["id"][-1] != "0" else "1")
    assert f"did you mean {entry['id']}?" in shell.run("keys", "revoke", wrong).err
    assert f"the label of {entry['id']}" in shell.run("keys", "revoke", "mobile app").err


def put_key(shell: Shell, **body: object) -> None:
    async def work() -> None:
        registry = open_registry(shell.registry)
        await registry.write(
            Put(kind=KEYS, name=digest_key(make_key()), body=dict(body), expected=0), author="test"
        )
        await registry.close()

    asyncio.run(work())


def test_a_key_that_ended_is_listed_as_expired(shell: Shell):
    put_key(shell, label="old", models=["*"], created="2020-01-01T00:00:00Z", expires="2020-02-01T00:00:00Z")
    (entry,) = shell.ok("keys", "list", "--json").json()
    assert entry["state"] == "expired"


def test_a_key_that_cannot_be_read_hides_no_other(shell: Shell):
    put_key(shell, label=7)
    shell.ok("keys", "create", "ci")
    assert "ci" in shell.ok("keys", "list").out


def test_a_key_that_cannot_be_read_is_told_to_a_machine_and_can_be_revoked(shell: Shell):
    put_key(shell, label="naive", models=["*"], created="x", expires="2020-01-01T00:00:00")
    (entry,) = shell.ok("keys", "list", "--json").json()
    assert entry["state"] == "unreadable"
    assert "time zone" in entry["problem"]
    shell.ok("keys", "revoke", entry["id"])
    (revocation,) = documents(shell, REVOCATIONS)
    assert key_id(revocation.name) == entry["id"]


def test_revoking_writes_the_key_and_the_revocation_together(shell: Shell):
    key = shell.ok("keys", "create", "ci").out.strip()
    shell.ok("keys", "revoke", key_id(digest_key(key)), "--reason", "leaked")
    (document,) = documents(shell, KEYS)
    assert document.body["revoked"]
    (revocation,) = documents(shell, REVOCATIONS)
    assert revocation.name == digest_key(key)

    async def work() -> set[int]:
        registry = open_registry(shell.registry)
        try:
            return {change.generation for change in await registry.history(limit=2)}
        finally:
            await registry.close()

    assert len(asyncio.run(work())) == 1, "both in one batch"


def test_who_holds_a_leaked_key_can_revoke_it_by_itself(shell: Shell):
    key = shell.ok("keys", "create", "ci").out.strip()
    ended = shell.ok("keys", "revoke", key)
    assert key not in ended.out + ended.err
    assert len(documents(shell, REVOCATIONS)) == 1


@pytest.mark.parametrize("identifier", ["", "abc", "0123456789ab", "chips_nothing"])
def test_a_key_that_is_not_there_ends_with_65(shell: Shell, identifier: str):
    shell.ok("keys", "create", "ci")
    ended = shell("keys", "revoke", identifier)
    assert ended.code == 65
    assert documents(shell, REVOCATIONS) == ()


def test_a_mistyped_key_is_not_repeated(shell: Shell):
    shell.ok("keys", "create", "ci")
    unknown = make_key()
    ended = shell("keys", "revoke", unknown)
    assert ended.code == 65
    assert unknown not in ended.err


def test_revoking_twice_says_so(shell: Shell):
    identifier = key_id(digest_key(shell.ok("keys", "create", "ci").out.strip()))
    shell.ok("keys", "revoke", identifier)
    ended = shell("keys", "revoke", identifier)
    assert "already" in ended.err
    assert len(documents(shell, REVOCATIONS)) == 1
