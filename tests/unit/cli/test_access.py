"""Keys with limits, keys that replace keys, and why somebody may or may not."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.auth.api_key_last_used import LastUsedRecorder
from gateway.core.api_keys import digest_key, is_well_formed, key_id
from gateway.registry.open_by_url import open_registry
from tests.unit.cli.shell import Shell


def made(shell: Shell, *options: str) -> Any:
    return shell.ok("keys", "create", "app", "--json", *options).json()


def listed(shell: Shell) -> dict[str, Any]:
    return {entry["id"]: entry for entry in shell.ok("keys", "list", "--json").json()}


def test_a_key_with_limits_of_its_own(shell: Shell):
    key = made(
        shell, "--network", "192.0.2.0/24", "--network", "2001:db8::/32", "--rate", "2.5", "--burst", "10",
        "--max-in-flight", "3", "--per-day", "100", "--per-month", "1000", "--note", "batch", "--verbs", "score",
    )  # fmt: skip
    entry = listed(shell)[key["id"]]
    assert entry["networks"] == ["192.0.2.0/24", "2001:db8::/32"]
    assert (entry["requests_per_s"], entry["burst"], entry["max_in_flight"]) == (2.5, 10, 3)
    assert (entry["requests_per_day"], entry["requests_per_month"]) == (100, 1000)
    assert (entry["note"], entry["verbs"]) == ("batch", ["score"])


@pytest.mark.parametrize(
    "options",
    [
        ["--network", "192.0.2.7/24"],
        ["--network", "everywhere"],
        ["--rate", "0"],
        ["--rate", "-1"],
        ["--rate", "nan"],
        ["--burst", "5"],
        ["--rate", "1", "--burst", "0"],
        ["--max-in-flight", "0"],
        ["--per-day", "-5"],
        ["--verbs", "drink"],
    ],
)
def test_limits_that_make_no_sense_make_no_key(shell: Shell, options: list[str]):
    assert shell("keys", "create", "app", *options).code == 65
    assert listed(shell) == {}


def test_a_key_is_replaced_with_an_overlap(shell: Shell):
    before = datetime.now(UTC) - timedelta(minutes=1)  # times are written to the second or the minute
    old = made(shell, "--models", "wine", "--expires", "90d", "--rate", "3")
    new = shell.ok("keys", "rotate", old["id"], "--overlap", "7d").out.strip()
    assert is_well_formed(new)
    entries = listed(shell)
    entry = entries[key_id(digest_key(new))]
    assert (entry["models"], entry["requests_per_s"], entry["replaces"]) == (["wine"], 3, old["id"])
    for one, days in ((entry, 90), (entries[old["id"]], 7)):
        counted_from = datetime.fromisoformat(one["expires"]) - timedelta(days=days)
        assert before < counted_from <= datetime.now(UTC)
    assert entries[old["id"]]["state"] == "valid"


def test_a_key_is_replaced_at_once(shell: Shell):
    old = made(shell)
    shell.ok("keys", "rotate", old["id"], "--overlap", "0")
    assert listed(shell)[old["id"]]["state"] == "revoked"
    assert shell("keys", "rotate", old["id"]).code == 65


def test_a_key_that_ends_sooner_is_not_made_to_last_longer(shell: Shell):
    old = made(shell, "--expires", "12h")
    shell.ok("keys", "rotate", old["id"], "--overlap", "7d")
    assert listed(shell)[old["id"]]["expires"] == old["expires"]


def test_the_list_says_when_a_key_was_last_used(shell: Shell):
    key, other = made(shell), made(shell)
    at = datetime(2026, 11, 24, 10, 0, tzinfo=UTC).timestamp()

    async def use() -> list[int]:
        registry = open_registry(shell.registry)
        used = {digest_key(key["key"]): at}
        now = [at]
        keeper = LastUsedRecorder(registry, used, now=lambda: now[0])
        written = [await keeper.write_due()]
        used[digest_key(key["key"])] = at + 60
        written.append(await keeper.write_due())  # too soon to be told to all gateways again
        now[0] = at + 3700
        used[digest_key(key["key"])] = at + 3700
        written.append(await keeper.write_due())
        await registry.close()
        return written

    assert asyncio.run(use()) == [1, 0, 1]
    entries = listed(shell)
    assert entries[key["id"]]["last_used"] == "2026-11-24T11:01Z"
    assert entries[other["id"]]["last_used"] is None
    assert "11:01" in shell.ok("keys", "list").out


def explained(shell: Shell, *arguments: str) -> tuple[bool, str]:
    ended = shell("explain-access", *arguments, "--json")
    answer = ended.json()
    assert ended.code == (0 if answer["allowed"] else 1)
    return answer["allowed"], "; ".join(r["text"] for r in answer["reasons"] if not r["allowed"])


def test_why_and_why_not(shell: Shell):
    shell.register("wine", "1", "--network", "192.0.2.0/25")
    shell.register("open", "1", "--access", "public")
    shell.ok("networks", "add", "192.0.2.0/24")
    key = made(shell, "--models", "wine", "--network", "192.0.2.0/28")
    identifier = key["id"]
    assert explained(shell, identifier, "wine") == (True, "")
    assert explained(shell, key["key"], "wine", "--from", "192.0.2.7") == (True, "")
    for arguments, why in (
        ((identifier, "wine", "--from", "203.0.113.1"), "no admitted network"),
        ((identifier, "wine", "--from", "192.0.2.200"), "may be used from"),
        ((identifier, "wine", "--from", "192.0.2.200"), "may be called from"),
        ((identifier, "wine", "--verb", "operate"), "may not operate wine"),
        ((identifier, "*", "--verb", "operate"), "the gateway as a whole"),
        (("none", "wine"), "a key is needed"),
    ):
        allowed, reasons = explained(shell, *arguments)
        assert not allowed
        assert why in reasons
    assert explained(shell, "none", "open") == (True, "")
    assert explained(shell, identifier, "open") == (True, "")
    shell.ok("keys", "revoke", identifier)
    shell.ok("disable", "wine")
    allowed, reasons = explained(shell, identifier, "wine")
    assert not allowed
    assert "revoked" in reasons
    assert "disabled" in reasons


def test_what_cannot_be_explained(shell: Shell):
    shell.register()
    key = made(shell)
    assert shell("explain-access", key["id"], "beer").code == 65
    assert shell("explain-access", "0123456789ab", "wine").code == 65
    assert shell("explain-access", key["id"], "wine", "--from", "here").code == 65
    ended = shell("explain-access", key["key"], "wine")
    assert key["key"] not in ended.out + ended.err
    assert "so        yes" in ended.out


def test_a_model_with_limits_and_pages(shell: Shell):
    shell.register(
        "wine", "1", "--network", "192.0.2.0/24", "--rate", "5", "--burst", "20", "--per-day", "100",
        "--cors-origin", "https://app.example.com", "--cors-credentials",
    )  # fmt: skip
    policy = shell.model()["policy"]
    assert policy["networks"] == ["192.0.2.0/24"]
    assert (policy["requests_per_s"], policy["burst"], policy["requests_per_day"]) == (5, 20, 100)
    assert policy["cors"]["https://app.example.com"]["allow_credentials"] is True
    shell.register("wine", "1", "--timeout", "5")  # what is not named stays
    assert shell.model()["policy"]["networks"] == ["192.0.2.0/24"]
    assert "https://app.example.com" in shell.model()["policy"]["cors"]
    shell.register("wine", "1", "--network", "any", "--cors-origin", "none")
    assert "networks" not in shell.model()["policy"]
    assert "cors" not in shell.model()["policy"]
    for wrong in (
        ["--cors-origin", "*", "--cors-credentials"],
        ["--network", "x"],
        ["--cors-origin", "app.example.com"],
    ):
        ended = shell(
            "register", "wine", "http://127.0.0.1:9", "--no-probe", "--force", "--version", "1", *wrong
        )
        assert ended.code == 65, wrong


def test_a_backend_that_is_where_none_may_be_is_not_registered(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def register(url: str) -> int:
        return shell("register", "wine", url, "--no-probe", "--force", "--version", "1").code

    assert register("http://169.254.169.254/x") == 65
    monkeypatch.setenv("CHIPS_UPSTREAM__POLICY", "cloud")
    assert register("http://127.0.0.1:9") == 65
    assert register("https://models.example.com") == 65
    monkeypatch.setenv("CHIPS_UPSTREAM__HOSTS", "models.example.com")
    assert register("https://models.example.com") == 0


def test_a_backend_behind_a_domain_of_its_own(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def registered(*options: str) -> Any:
        shell.ok(
            "register",
            "wine",
            "https://wine.example.com",
            "--no-probe",
            "--force",
            "--version",
            "1",
            *options,
        )
        return shell.model()["backends"][0].get("audience")

    assert registered("--audience", "https://wine-abc.a.run.app") == "https://wine-abc.a.run.app"
    assert registered("--owner", "ana") == "https://wine-abc.a.run.app", "what is not named stays"
    assert registered("--audience", "origin") is None
    where = ("--no-probe", "--force", "--version", "1", "--audience")
    assert shell("register", "wine", "https://wine.example.com", *where, "a b").code == 65
    monkeypatch.setenv("CHIPS_UPSTREAM__POLICY", "cloud")
    monkeypatch.setenv("CHIPS_UPSTREAM__HOSTS", "*.example.com")
    assert registered("--audience", "https://wine-abc.a.run.app") == "https://wine-abc.a.run.app"
    ended = shell("register", "wine", "https://evil-abc.a.run.app", *where, "https://wine-abc.a.run.app")
    assert ended.code == 65
    assert "upstream.hosts" in ended.err


def test_a_trial_lets_pass_who_is_elsewhere(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    shell.register("wine", "1", "--network", "192.0.2.0/25")
    key = made(shell, "--models", "wine", "--network", "192.0.2.0/28")
    monkeypatch.setenv("CHIPS_EDGE__REPORT_ONLY", "true")
    explained = shell.ok("explain-access", key["id"], "wine", "--from", "203.0.113.1", "--json").json()
    assert explained["allowed"]
    assert str(explained["reasons"]).count("but edge.report_only lets it pass") == 3


def test_why_somebody_with_a_token_may_or_may_not(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    shell.register("wine", "1")
    issuer = {"issuer": ["https://login.acme.example"], "audience": ["chips"]}
    entries = [
        {**issuer, "name": "ops", "subjects": ["*"], "groups": ["sre"], "verbs": ["operate"]},
        {**issuer, "name": "jobs", "subjects": ["batch-*"], "models": ["fraud-*"], "networks": ["192.0.2.0/28"], "max_in_flight": 4},
    ]  # fmt: skip
    monkeypatch.setenv("CHIPS_AUTH__ISSUERS", json.dumps(entries))
    allowed, reasons = explained(shell, "ops:ana", "*", "--verb", "operate")
    assert allowed, reasons
    told = str(shell.ok("explain-access", "ops:ana", "*", "--verb", "operate", "--json").json())
    assert "where the token names a group sre" in told
    assert not explained(shell, "ops:ana", "wine")[0]
    shell.register("fraud-eu", "1")
    assert explained(shell, "jobs:batch-7", "fraud-eu") == (True, "")
    assert "4 at once" in str(shell.ok("explain-access", "jobs:batch-7", "fraud-eu", "--json").json())
    for arguments, why in (
        (("jobs:batch-7", "wine"), "rights are score, metadata on fraud-*"),
        (("jobs:batch-7", "fraud-eu", "--from", "192.0.2.99"), "may be used from"),
    ):
        allowed, reasons = explained(shell, *arguments)
        assert not allowed
        assert why in reasons
    for stranger in ("jobs:eve", "nobody:ana", ":", "jobs:"):
        ended = shell("explain-access", stranger, "wine")
        assert ended.code == 65
        assert "auth.issuers" in ended.err
