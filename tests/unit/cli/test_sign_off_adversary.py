"""Sign-off against people who are in the policy, or may write the registry, and want more than they may."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.cli.support import console
from gateway.registry.base import APPROVALS, EMERGENCIES, MODELS, SIGN_OFF
from tests.unit.cli.sign_off_stage import Stage

EMERGENCY = ("--emergency", "--reason", "production is down")


def act_alone(stage: Stage, who: str = "cy") -> str:
    identity = stage.request()
    stage.prod("approve", identity, *EMERGENCY, "--ssh-key", stage.people.key(who))
    stage.register()
    return identity


def finding(stage: Stage) -> dict[str, Any]:
    found = stage.shell("--env", "prod", "doctor", "--json").json()
    return next(one for one in found if one["subject"] == "wine@4 sign-off")


@pytest.mark.parametrize(
    "words", [("approve",), ("reject", "--reason", "it is over"), ("approve", "--review")]
)
def test_who_acted_alone_cannot_end_their_own_emergency(stage: Stage, words: tuple[str, ...]):
    identity = act_alone(stage)
    stage.prod(words[0], identity, *words[1:], "--ssh-key", stage.people.key("cy"))
    assert stage.state(identity)["review_due"]
    assert stage.read("prod", EMERGENCIES, identity).body["by"] == "cy@example.com"
    stage.prod("approve", identity, "--review", "--ssh-key", stage.people.key("bea"))
    assert not stage.state(identity)["review_due"]
    with pytest.raises(AssertionError):
        stage.read("prod", EMERGENCIES, identity)


def test_who_asked_does_not_review_what_a_colleague_put_into_service_for_them(stage: Stage):
    identity = stage.request(who="bea")
    stage.prod("approve", identity, *EMERGENCY, "--ssh-key", stage.people.key("cy"))
    review = ("approve", identity, "--review", "--ssh-key")
    assert (
        "nobody reviews what they have asked for themselves"
        in stage.refused(*review, stage.people.key("bea")).err
    )
    assert stage.state(identity)["review_due"]
    stage.prod(*review, stage.people.key("dan"))
    assert not stage.state(identity)["review_due"]


class InTwentyDays(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "InTwentyDays":
        return cls.fromtimestamp(datetime.now(tz).timestamp() + 20 * 86_400, tz)


def test_an_emergency_that_has_expired_is_still_to_be_reviewed(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    identity = act_alone(stage)
    monkeypatch.setattr("gateway.signoff.approval_requests.datetime", InTwentyDays)
    monkeypatch.setattr("gateway.signoff.in_toto_statement.now_rfc3339", InTwentyDays.now(UTC).isoformat)
    assert "it has expired after 14 days" in stage.prod("approvals", identity).out
    assert not stage.state(identity)["approved"]
    stage.prod("approve", identity, "--review", "--ssh-key", stage.people.key("cy"))
    assert stage.state(identity)["review_due"]
    assert stage.read("prod", EMERGENCIES, identity).body["by"] == "cy@example.com"
    stage.prod("approve", identity, "--review", "--ssh-key", stage.people.key("dan"))
    with pytest.raises(AssertionError):
        stage.read("prod", EMERGENCIES, identity)


def test_nobody_changes_the_policy_alone(stage: Stage):
    (stage.folder / "weak.toml").write_text(stage.people.policy(approvals="approver = 1"))
    identity = stage.request("--policy", str(stage.folder / "weak.toml"))
    ended = stage.refused("approve", identity, *EMERGENCY, "--ssh-key", stage.people.key("cy"))
    assert "another sign-off policy needs its approvals" in ended.err
    assert "approver is missing" in stage.refused("sign-off", "set", "weak.toml").err


def test_decisions_about_something_else_are_shown_nowhere_as_approvals(stage: Stage):
    """Signed decisions that somebody with the database's rights puts under another request, or into another registry."""
    mine = stage.request()
    other = stage.request("wine@4", "--reason", "again")
    stage.approve(other, "bea", "dan")
    theirs = stage.read("prod", APPROVALS, other).body
    body = stage.read("prod", APPROVALS, mine).body
    stage.put("prod", APPROVALS, other, None)
    stage.put("prod", APPROVALS, mine, {**body, "decisions": theirs["decisions"]})
    stage.put("prod", APPROVALS, "copy", theirs)
    stage.put("prod", MODELS, "wine", stage.model(url="http://127.0.0.1:9"))
    assert finding(stage)["outcome"] == "wrong"
    assert "approved by" not in stage.prod("audit", "wine", "--at", "2999-01-01T00:00Z").out


def test_a_rejection_by_a_clock_that_is_behind_counts(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    identity = stage.request()
    stage.approve(identity, "bea", "dan")
    behind = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
    with monkeypatch.context() as then:
        then.setattr("gateway.signoff.in_toto_statement.now_rfc3339", lambda: behind)
        stage.prod("reject", identity, "--ssh-key", stage.people.key("dan"), "--reason", "I was wrong")
    assert "dan@example.com rejected it: I was wrong" in stage.register(ok=False).err
    body = stage.read("prod", APPROVALS, identity).body
    assert len(body["decisions"]) == 3
    stage.approve(identity, "dan")
    stage.register()


def test_taking_out_of_service_asks_no_issuer(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    act_alone(stage)

    async def unreachable(policy: object) -> None:
        raise AssertionError(policy)

    monkeypatch.setattr("gateway.signoff.read_sign_off_records.fetch_current_issuer_keys", unreachable)
    stage.prod("disable", "wine")
    stage.prod("deregister", "wine", "--yes")


def test_an_approval_counts_in_one_environment(stage: Stage):
    """Another one with the very same policy, people and models takes no copy of it."""
    identity = stage.request()
    stage.approve(identity, "bea", "dan")
    for kind, name in ((SIGN_OFF, "policy"), (APPROVALS, identity)):
        stage.put("qa", kind, name, stage.read("prod", kind, name).body)
    declared = json.dumps({"chips": 1, "models": {"wine": stage.model(url="http://other")}})
    (stage.folder / "declared.yaml").write_text(declared)
    ended = stage.shell("--env", "qa", "import", "declared.yaml", "--yes", "--force")
    assert ended.code == console.EX_NOPERM
    assert "it was asked for another environment" in ended.err
    assert (
        "approved by" not in stage.shell.ok("--env", "qa", "audit", "wine", "--at", "2999-01-01T00:00Z").out
    )


def test_nobody_approves_for_another_environment_than_the_one_they_look_at(stage: Stage):
    """People who approve in qa without much thought would approve for prod, to whose registry the requester copies it."""
    identity = stage.request()
    for kind, name in ((SIGN_OFF, "policy"), (APPROVALS, identity)):
        stage.put("qa", kind, name, stage.read("prod", kind, name).body)
    words = ("--env", "qa", "approve", identity, "--ssh-key", stage.people.key("bea"))
    ended = stage.shell(*words)
    assert ended.code == console.EX_DATAERR
    assert "it was asked for another environment" in ended.err
    (found,) = stage.shell.ok("--env", "qa", "approvals", "--json").json()
    assert "it was asked for another environment" in found["problems"]
    stage.approve(identity, "bea", "dan")
    stage.put("qa", APPROVALS, identity, stage.read("prod", APPROVALS, identity).body)
    (found,) = stage.shell.ok("--env", "qa", "approvals", "--json").json()
    assert not found["approved"]


def test_nobody_approves_under_another_name(stage: Stage):
    """What is approved is shown by its title, which no signature covers."""
    identity = stage.request()
    body = stage.read("prod", APPROVALS, identity).body
    stage.put("prod", APPROVALS, identity, {**body, "title": "beer@2"})
    ended = stage.refused("approve", identity, "--ssh-key", stage.people.key("bea"))
    assert "it is called 'beer@2', and was asked for wine@4" in ended.err
    assert not stage.state(identity)["approved"]
    stage.put("prod", APPROVALS, identity, body)
    stage.approve(identity, "bea", "dan")
    stage.register()


def test_one_person_with_two_keys_is_one_person(stage: Stage):
    stage.put("prod", SIGN_OFF, "policy", None)
    stage.people.make_key("bea-too")
    mine, other = stage.people.public("bea"), stage.people.public("bea-too")
    policy = stage.people.policy().replace(f'"{mine}"', f'"{mine}", "{other}"')
    (stage.folder / "sign-off.toml").write_text(policy)
    stage.prod("sign-off", "set", "sign-off.toml")
    identity = stage.request()
    stage.approve(identity, "bea", "bea-too")
    assert stage.state(identity)["approved_by"] == ["bea@example.com"]
    assert "approver is missing" in stage.register(ok=False).err


def test_a_request_that_was_exchanged_is_not_approved(stage: Stage):
    """The approver has seen one, and is to sign another under the same id."""
    seen, other = stage.request(), stage.request("wine@4", "--reason", "again")
    assert len(seen) == 32, "with a quarter of the bits, two requests with one id are found in seconds"
    stage.put("prod", APPROVALS, seen, stage.read("prod", APPROVALS, other).body)
    ended = stage.refused("approve", seen, "--ssh-key", stage.people.key("bea"))
    assert "another one was put in its place" in ended.err
    assert stage.read("prod", APPROVALS, seen).body["decisions"] == []


def test_the_address_of_what_has_neither_image_nor_artifact_is_bound(stage: Stage):
    def declare(url: str) -> tuple[str, ...]:
        bare = stage.model(url=url, image="", artifact_digest="")
        (stage.folder / "bare.yaml").write_text(json.dumps({"chips": 1, "models": {"wine": bare}}))
        return ("import", "bare.yaml", "--yes", "--force")

    stage.put("qa", MODELS, "wine", stage.model(image="", artifact_digest=""))
    identity = stage.request()
    stage.approve(identity, "bea", "dan")
    assert "address http://qa" in stage.prod("approvals", identity).out
    told = "the address (it has neither image nor artifact) has changed since it was asked for"
    assert told in stage.refused(*declare("http://elsewhere")).err
    stage.prod(*declare("http://qa"))
    assert finding(stage)["outcome"] == "ok"
    stage.put("prod", MODELS, "wine", stage.model(url="http://127.0.0.1:9", image="", artifact_digest=""))
    assert finding(stage)["outcome"] == "wrong"


def test_approvals_of_two_requests_do_not_add_up(stage: Stage):
    stage.approve(stage.request(), "bea")
    stage.approve(stage.request("wine@4", "--reason", "again"), "dan")
    stage.put("prod", MODELS, "wine", stage.model(url="http://127.0.0.1:9"))
    assert finding(stage)["outcome"] == "wrong"
    assert "approver is missing" in stage.register(ok=False).err


def test_an_approval_that_was_taken_back_is_none(stage: Stage):
    identity = stage.request()
    stage.approve(identity, "bea", "dan")
    stage.prod("reject", identity, "--ssh-key", stage.people.key("dan"), "--reason", "I was wrong")
    stage.put("prod", MODELS, "wine", stage.model(url="http://127.0.0.1:9"))
    assert finding(stage)["outcome"] == "wrong"
    assert "dan@example.com" not in stage.prod("audit", "wine", "--at", "2999-01-01T00:00Z").out
