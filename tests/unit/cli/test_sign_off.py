"""`chips sign-off`, `request-approval`, `approve`, `reject`: by people with SSH keys, in registries of their own."""

import base64
import contextlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.cli.support import console
from gateway.core.model_updates import to_document
from gateway.core.version_evidence import EvidenceRecord
from gateway.registry.base import APPROVALS, EMERGENCIES, EVIDENCE, MODELS, SIGN_OFF
from gateway.signoff import ssh_keygen_signature
from tests.unit.cli.sign_off_stage import ARTIFACT, IMAGE, Stage


def test_a_version_serves_when_two_people_have_approved_it(stage: Stage):
    ended = stage.register(ok=False)
    assert ended.code == console.EX_NOPERM
    assert "wine@4 may not serve here: nobody has asked for an approval" in ended.err
    identity = stage.request()
    ended = stage.approve(identity, "bea")
    assert "an approval by a person of the role approver is missing" in ended.out
    assert "approver is missing" in stage.register(ok=False).err
    ended = stage.approve(identity, "dan")
    assert "approved by bea@example.com, dan@example.com; holds until 20" in ended.out
    stage.register()
    ended = stage.prod("audit", "wine", "--at", "2999-01-01T00:00Z")
    assert f"approved by bea@example.com, dan@example.com (request {identity})" in ended.out
    assert f"approved  {identity}  wine@4, asked for by ana" in stage.prod("approvals", identity).out
    assert IMAGE.partition("@")[2] in stage.prod("approvals", identity).out
    # Traffic and going out of service need nobody's signature.
    stage.prod("disable", "wine")
    stage.prod("enable", "wine")
    stage.prod("deregister", "wine", "--yes")


def test_nobody_approves_what_they_asked_for_and_a_name_alone_counts_nowhere(stage: Stage):
    identity = stage.request(who="bea")
    ended = stage.refused("approve", identity, "--ssh-key", stage.people.key("bea"))
    assert "nobody approves what they have asked for themselves" in ended.err
    assert (
        "this person has no role that approves"
        in stage.refused("approve", identity, "--ssh-key", stage.people.key("ana")).err
    )
    assert (
        "does not know the key"
        in stage.refused("approve", identity, "--ssh-key", stage.people.key("eve")).err
    )
    assert "a name alone counts nowhere" in stage.refused("approve", identity).err
    assert (
        stage.shell("--env", "prod", "approve", identity, "--by", "dan@example.com").code == console.EX_USAGE
    )
    stage.approve(identity, "dan")
    stage.approve(identity, "dan")
    assert not stage.state(identity)["approved"], "one person twice is one person"
    assert stage.register("--by", "dan@example.com", ok=False).code == console.EX_NOPERM


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"artifact_digest": "sha256:" + "c" * 64}, "the artifact has changed"),
        ({"image": "eu.pkg.dev/p/wine@sha256:" + "c" * 64}, "the image has changed"),
        ({"image": "eu.pkg.dev/p/wine:latest"}, "named by a tag, which can move"),
        ({"image": "eu.pkg.dev/other/wine@sha256:" + "b" * 64}, ""),
        ({"predict_path": "/other"}, "the contract (path, inputs, outputs, concurrency) has changed"),
        ({"version": "5"}, "nobody has asked for an approval"),
        ({"artifact_digest": "", "artifact": "gs://b/wine/4"}, "has no digest"),
        ({"artifact_digest": "sha256:short"}, "64 hexadecimal digits"),
    ],
)
def test_an_approval_holds_for_what_was_approved_alone(stage: Stage, change: dict[str, str], told: str):
    identity = stage.request()
    stage.approve(identity, "bea", "dan")
    model = stage.model(**change)
    if "version" in change:
        model["traffic"] = {"5": 100}
    (stage.folder / "other.yaml").write_text(json.dumps({"chips": 1, "models": {"wine": model}}))
    words = ("import", "other.yaml", "--yes", "--force")
    if not told:
        stage.prod(*words)
        return
    ended = stage.refused(*words)
    assert ended.code == console.EX_NOPERM
    assert told in ended.err


def test_a_change_of_how_a_model_may_be_called_needs_an_approval_too(stage: Stage):
    stage.approve(stage.request(), "bea", "dan")
    stage.register()
    model = {**stage.model(url="http://prod"), "policy": {"access": "public"}}
    (stage.folder / "other.yaml").write_text(json.dumps({"chips": 1, "models": {"wine": model}}))
    assert "the model's policy has changed" in stage.refused("import", "other.yaml", "--yes", "--force").err


def test_a_rejection_outweighs_approvals_until_it_is_taken_back(stage: Stage):
    identity = stage.request()
    stage.approve(identity, "bea", "dan")
    assert stage.refused("reject", identity, "--ssh-key", stage.people.key("cy")).code == console.EX_USAGE
    stage.prod("reject", identity, "--ssh-key", stage.people.key("cy"), "--reason", "too early")
    assert "cy@example.com rejected it: too early" in stage.register(ok=False).err
    stage.approve(identity, "cy")
    stage.register()


def test_approvals_expire(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    long_ago = (datetime.now(UTC) - timedelta(days=15)).isoformat()
    with monkeypatch.context() as then:
        then.setattr("gateway.signoff.in_toto_statement.now_rfc3339", lambda: long_ago)
        identity = stage.request()
        words = ("approve", identity, "--ssh-key", stage.people.key("bea"))
        assert "it has expired after 14 days" in stage.refused(*words).err
    with monkeypatch.context() as then:
        day = (datetime.now(UTC) - timedelta(days=13)).isoformat()
        then.setattr("gateway.signoff.in_toto_statement.now_rfc3339", lambda: day)
        stage.approve(identity, "bea")
    stage.approve(identity, "dan")
    assert stage.state(identity)["approved"]
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    monkeypatch.setattr("gateway.signoff.in_toto_statement.now_rfc3339", lambda: future)
    assert "which is to come" in stage.refused("approve", identity, "--ssh-key", stage.people.key("bea")).err


def test_evidence_expires_and_the_approvals_with_it(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    stage.put("prod", SIGN_OFF, "policy", None)
    policy = stage.people.policy(evidence='"verify"', approvals="approver = 1")
    (stage.folder / "sign-off.toml").write_text(f"evidence_days = 7\n{policy}")
    stage.prod("sign-off", "set", "sign-off.toml")
    assert "verify, none older than 7 days" in stage.prod("sign-off", "show").out
    record = EvidenceRecord(
        model="wine",
        version="4",
        sort="verify",
        passed=True,
        summary="28 checks passed",
        backend="http://qa/predict",
        artifact_digest=ARTIFACT,
    )

    def write(days: float) -> None:
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
        with monkeypatch.context() as then:
            then.setattr("gateway.registry.sqlite_write.now_rfc3339", lambda: at.replace("+00:00", "Z"))
            stage.put("qa", EVIDENCE, record.name, to_document(record))

    write(8)
    words = (
        "request-approval",
        "wine@4",
        "--from",
        "qa",
        "--to",
        "prod",
        "--ssh-key",
        stage.people.key("ana"),
    )
    assert "the evidence verify has expired: it is from 20" in stage.shell(*words).err
    write(6.5)
    identity = stage.request()
    stage.approve(identity, "bea")
    assert stage.state(identity)["approved"]
    with monkeypatch.context() as later:
        later.setattr("gateway.signoff.approval_requests.datetime", Later)
        assert "the evidence verify has expired" in stage.register(ok=False).err
    stage.register()
    with contextlib.closing(sqlite3.connect(stage.folder / "qa.db")) as database, database:
        for (trigger,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("DELETE FROM history WHERE kind = ?", (EVIDENCE,))
    assert "it is from an unknown time" in stage.shell(*words).err


class Later(datetime):
    """A day later."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) + timedelta(days=1)


def test_evidence_is_asked_for_copied_and_bound(stage: Stage):
    stage.put("prod", SIGN_OFF, "policy", None)
    (stage.folder / "sign-off.toml").write_text(
        stage.people.policy(evidence='"verify"', approvals="approver = 1")
    )
    stage.prod("sign-off", "set", "sign-off.toml")
    words = ["request-approval", "wine@4", "--from", "qa", "--to", "prod"]
    words += ["--ssh-key", stage.people.key("ana")]
    assert "the evidence verify is missing for wine@4" in stage.shell(*words).err
    record = EvidenceRecord(
        model="wine",
        version="4",
        sort="verify",
        passed=False,
        summary="2 of 28 checks failed",
        backend="http://qa/predict",
        artifact_digest=ARTIFACT,
    )
    body = to_document(record)
    stage.put("qa", EVIDENCE, record.name, body)
    assert "the evidence verify says that it failed" in stage.shell(*words).err
    body = {**body, "passed": True, "summary": "28 checks passed"}
    for other in ({"artifact_digest": "sha256:" + "c" * 64}, {"backend": "http://elsewhere/predict"}):
        stage.put("qa", EVIDENCE, record.name, {**body, **other})
        assert "the evidence verify is missing" in stage.shell(*words).err, "it is about something else"
    stage.put("qa", EVIDENCE, record.name, body)
    identity = stage.request()
    stage.approve(identity, "bea")
    assert "evidence verify: 28 checks passed" in stage.prod("approvals", identity).out
    good = stage.read("prod", APPROVALS, identity).body
    stage.put("prod", APPROVALS, identity, {**good, "evidence": {"verify": {**body, "summary": "all"}}})
    assert "the evidence of the request is not what was signed" in stage.register(ok=False).err
    stage.put("prod", APPROVALS, identity, good)
    stage.register()


def test_an_emergency_is_loud_and_is_reviewed(stage: Stage):
    identity = stage.request()
    words = ("approve", identity, "--emergency", "--ssh-key")
    assert stage.refused(*words, stage.people.key("cy")).code == console.EX_USAGE, "it needs a reason"
    reason = ("--reason", "production is down")
    assert "does not let this person alone" in stage.refused(*words, stage.people.key("bea"), *reason).err
    ended = stage.prod(*words, stage.people.key("cy"), *reason)
    assert "EMERGENCY by cy@example.com: a review is due by 20" in ended.out
    said = stage.read("prod", EMERGENCIES, identity).body
    assert (said["title"], said["by"], said["reason"]) == ("wine@4", "cy@example.com", "production is down")
    ended = stage.register()
    assert "EMERGENCY: wine@4 goes into service on the word of cy@example.com alone" in ended.err
    assert stage.state(identity)["review_due"]
    stage.prod("approve", identity, "--review", "--ssh-key", stage.people.key("cy"))
    assert stage.state(identity)["review_due"], "nobody reviews themselves"
    ended = stage.prod("approve", identity, "--review", "--ssh-key", stage.people.key("bea"))
    assert "reviewed" in ended.out
    assert not stage.state(identity)["review_due"]
    with pytest.raises(AssertionError):
        stage.read("prod", EMERGENCIES, identity)


def test_another_policy_needs_approvals_and_ends_those_of_versions(stage: Stage):
    version = stage.request()
    stage.approve(version, "bea", "dan")
    (stage.folder / "weak.toml").write_text(stage.people.policy(approvals="approver = 1"))
    ended = stage.refused("sign-off", "set", "weak.toml")
    assert ended.code == console.EX_NOPERM
    assert "sign-off policy may not serve here: nobody has asked" in ended.err
    identity = stage.request("--policy", str(stage.folder / "weak.toml"))
    stage.approve(identity, "bea", "cy")
    (stage.folder / "weaker.toml").write_text(stage.people.policy(approvals="registrar = 1"))
    assert "the new sign-off policy has changed" in stage.refused("sign-off", "set", "weaker.toml").err
    stage.prod("sign-off", "set", "weak.toml")
    assert "the sign-off policy has changed since it was asked for" in stage.register(ok=False).err
    assert "1 of approver" in stage.prod("sign-off", "show").out
    assert stage.prod("sign-off", "set", "weak.toml").out.startswith("unchanged")


def test_somebody_with_the_databases_rights_cannot_make_an_approval(stage: Stage):
    """Forged decisions, those of other requests, and an altered request: none counts."""
    good, other = stage.request(), stage.request("wine@4", "--reason", "again")
    stage.approve(other, "bea", "dan")
    theirs = stage.read("prod", APPROVALS, other).body
    mine = stage.read("prod", APPROVALS, good).body
    stage.put("prod", APPROVALS, good, {**mine, "decisions": theirs["decisions"]})
    facts = stage.state(good)
    assert not facts["approved"]
    assert [text.rpartition(": ")[2] for text in facts["ignored"]] == ["it belongs to another request"] * 2
    decision = dict(theirs["decisions"][0])
    content = json.loads(base64.b64decode(decision["payload"]))
    content["predicate"]["request"] = good
    decision["payload"] = base64.b64encode(json.dumps(content).encode()).decode()
    stage.put("prod", APPROVALS, good, {**mine, "decisions": [decision, {"x": 1}]})
    assert len(stage.state(good)["ignored"]) == 2
    stage.put("prod", APPROVALS, "copy", theirs)
    assert not stage.state("copy")["approved"], "a request lies under the digest of what was asked"
    stage.put("prod", APPROVALS, good, {"title": "wine@4"})
    assert "missing required field" in stage.state(good)["problems"][0]
    stage.put("prod", SIGN_OFF, "policy", {"people": []})
    ended = stage.register(ok=False)
    assert ended.code == console.EX_NOPERM
    assert "the sign-off policy cannot be read" in ended.err


def test_without_a_policy_nothing_is_asked(stage: Stage):
    assert stage.shell("--env", "qa", "approvals").code == console.EX_DATAERR
    declared = json.dumps({"chips": 1, "models": {"wine": stage.model(url="http://other")}})
    (stage.folder / "declared.yaml").write_text(declared)
    stage.shell.ok("--env", "qa", "import", "declared.yaml", "--yes", "--force")


def test_what_is_wrong_with_a_request_is_told(stage: Stage):
    key = ("--ssh-key", stage.people.key("ana"))
    for words, told in (
        (("wine@4", *key), "hint:"),
        (("--to", "prod", *key), "hint:"),
        (("wine", "--from", "qa", "--to", "prod", *key), "is not MODEL@VERSION"),
        (("wine@9", "--from", "qa", "--to", "prod", *key), "wine has no version 9"),
        (("beer@1", "--from", "qa", "--to", "prod", *key), 'no model "beer"'),
        (("wine@4", "--from", "qa", "--to", "nowhere", *key), 'no environment "nowhere"'),
        (("wine@4", "--from", "prod", "--to", "qa", *key), "asks for no approvals"),
        (("wine@4", "--from", "qa", "--to", "prod"), "a name alone counts nowhere"),
    ):
        ended = stage.shell("request-approval", *words)
        assert ended.code not in {0, 1}, words
        assert told in ended.err, words
    assert 'no request "x"' in stage.refused("approve", "x", *key).err
    assert stage.prod("approvals").out.startswith("no requests yet")
    (stage.folder / "bad.toml").write_text("approvals = {}")
    assert "sign-off.md" in stage.refused("sign-off", "set", "bad.toml").err
    assert stage.refused("sign-off", "set", "none.toml").code == console.EX_DATAERR


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"concurrency": 3}, "its contract (path, inputs, outputs, concurrency) is not the one"),
        ({"predict_path": "/other"}, "its contract (path, inputs, outputs, concurrency) is not the one"),
        ({"policy": {"timeout_s": 7}}, "the model's policy is not one that was signed for"),
    ],
)
def test_the_doctor_finds_what_serves_otherwise_than_it_was_approved(
    stage: Stage, changes: dict[str, Any], told: str
):
    """Image and artifact are the approved ones; somebody with the database's rights has changed the rest."""
    stage.approve(stage.request(), "bea", "dan")
    stage.register()
    policy = {"policy": changes.pop("policy")} if "policy" in changes else {}
    stage.put("prod", MODELS, "wine", {**stage.model(url="http://prod", **changes), **policy})
    found = {one["subject"]: one for one in stage.shell("--env", "prod", "doctor", "--json").json()}
    assert found["wine@4 sign-off"]["outcome"] == "wrong"
    assert told in found["wine@4 sign-off"]["text"]


def test_the_doctor_finds_what_serves_without_approvals(stage: Stage):
    def findings() -> dict[str, Any]:
        ended = stage.shell("--env", "prod", "doctor", "--json")
        return {one["subject"]: one for one in ended.json()}

    stage.put("prod", MODELS, "wine", stage.model(url="http://127.0.0.1:9"))  # past the command line
    found = findings()
    assert found["wine@4 sign-off"]["outcome"] == "wrong"
    assert found["history"]["outcome"] == "skipped"
    identity = stage.request()
    stage.prod("approve", identity, "--emergency", "--reason", "down", "--ssh-key", stage.people.key("cy"))
    found = findings()
    assert found["wine@4 sign-off"]["outcome"] == "ok"
    assert "review is due" in found[f"emergency {identity}"]["text"]
    stage.approve(identity, "bea", "dan")
    found = findings()
    assert f"emergency {identity}" not in found
    assert (
        found["wine@4 sign-off"]["text"] == "signed for by cy@example.com, bea@example.com, dan@example.com"
    )
    stage.put("prod", MODELS, "wine", stage.model(url="http://127.0.0.1:9", image="wine:latest"))
    found = findings()
    assert "can move" in found["wine@4 image"]["text"]
    assert found["wine@4 sign-off"]["outcome"] == "wrong"


def test_an_image_is_registered_by_its_digest(stage: Stage):
    words = ("register", "wine", "http://127.0.0.1:9/wine-4", "--no-probe", "--force", "--version", "5")
    stage.shell.ok("--env", "qa", *words, "--image", IMAGE)
    backends = {one["version"]: one for one in stage.read("qa", MODELS, "wine").body["backends"]}
    assert backends["5"]["image"] == IMAGE


def test_the_command_that_approves_is_printed_as_it_runs(stage: Stage):
    registry = f"sqlite://{stage.folder}/prod.db"
    words = ("request-approval", "wine@4", "--from", "qa", "--to", registry)
    ended = stage.shell.ok(*words, "--ssh-key", stage.people.key("ana"))
    chips, *printed = ended.out.splitlines()[-1].split()[1:]
    assert chips == "chips"
    stage.shell.ok(*printed[:-1], stage.people.key("bea"))


def test_a_key_or_a_program_that_is_not_there_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    identity = stage.request()
    for key in (".", "/", ""):
        ended = stage.refused("approve", identity, "--ssh-key", key)
        assert "is not the file of an SSH key" in ended.err
    # Each command is a process of its own, which has verified nothing yet.
    monkeypatch.setattr(
        "gateway.signoff.ssh_keygen_signature._verify", ssh_keygen_signature._verify.__wrapped__
    )
    monkeypatch.setenv("PATH", str(stage.folder))
    for words in (("approvals",), ("approve", identity, "--ssh-key", stage.people.key("bea"))):
        ended = stage.refused(*words)
        assert ended.code == console.EX_UNAVAILABLE
        assert "error: ssh-keygen is not installed: apt install openssh-client\n" in ended.err
    stage.put("prod", MODELS, "wine", stage.model(url="http://127.0.0.1:9"))
    found = {one["subject"]: one for one in stage.shell("--env", "prod", "doctor", "--json").json()}
    assert found["sign-off"]["text"].startswith("no signature can be checked: ssh-keygen is not installed")
    assert "history" in found, "the other checks are done all the same"
