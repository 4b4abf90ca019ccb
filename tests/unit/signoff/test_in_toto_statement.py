"""Statements of people: the envelope by its specification, and signatures that hold for one statement of one person."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope

from gateway.audit.dsse_envelope import SigningError
from gateway.signoff import ssh_keygen_signature
from gateway.signoff.approval_subject import Subject
from gateway.signoff.environment_policy import SignOffPolicy, parse_policy_toml
from gateway.signoff.in_toto_statement import PREDICATE_TYPE, make_statement, read_statement, ssh_signer
from tests.unit.signoff.people import People

SUBJECT = Subject(
    environment="r1",
    sign_off="p1",
    model="wine",
    version="4",
    image="sha256:" + "1" * 64,
    artifact="sha256:" + "2" * 64,
    evidence={"verify": "3" * 64},
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def policy(people: People) -> SignOffPolicy:
    return parse_policy_toml(people.policy())


def statement(people: People, who: str = "bea", **changes: Any) -> dict[str, Any]:
    return make_statement(
        "approve",
        "id1",
        f"{who}@example.com",
        changes.pop("subject", SUBJECT),
        ssh_signer(Path(people.key(who))),
    )


def test_the_envelope_is_that_of_the_specification():
    """The test vector of dsse/protocol.md."""
    envelope = Envelope(b"hello world", "http://example.com/HelloWorld", {})
    assert envelope.pae() == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_statement_is_what_other_programs_of_in_toto_read(people: People):
    made = statement(people)
    assert made["payloadType"] == "application/vnd.in-toto+json"
    content = json.loads(base64.b64decode(made["payload"]))
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == PREDICATE_TYPE
    assert content["subject"] == [
        {"name": "wine@4", "digest": {"sha256": SUBJECT.digest()}},
        {"name": "image", "digest": {"sha256": "1" * 64}},
        {"name": "artifact", "digest": {"sha256": "2" * 64}},
    ]
    assert content["predicate"]["decision"] == "approve"


def test_anybody_can_check_it_with_ssh_keygen_alone(people: People, tmp_path: Path):
    made = statement(people)
    payload = base64.b64decode(made["payload"])
    kind = made["payloadType"].encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    (tmp_path / "allowed").write_text(f"bea@example.com {people.public('bea')}\n")
    (tmp_path / "signature").write_bytes(base64.b64decode(made["signatures"][0]["sig"]))
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "bea@example.com"]
    command += ["-n", "chips-approval", "-s", "signature"]
    ended = subprocess.run(command, cwd=tmp_path, input=message, capture_output=True, check=True)
    assert b"Good" in ended.stdout


def test_a_good_statement_names_its_person(people: People, policy: SignOffPolicy):
    signed = read_statement(statement(people), policy, {})
    assert signed.person.name == "bea@example.com"
    assert signed.predicate.subject == SUBJECT


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_other_kinds_of_keys(people: People, kind: str, tmp_path: Path):
    folder = People.make_key(people, f"key-{kind}", kind)
    public = people.public(folder.name)
    text = people.policy(more=f'[[people]]\nname = "{kind}"\nroles = ["approver"]\nssh_keys = ["{public}"]\n')
    made = make_statement("approve", "id1", kind, SUBJECT, ssh_signer(folder))
    assert read_statement(made, parse_policy_toml(text), {}).person.name == kind


def changed(made: dict[str, Any], **changes: Any) -> dict[str, Any]:
    content = json.loads(base64.b64decode(made["payload"]))
    content["predicate"] |= changes
    return {**made, "payload": base64.b64encode(json.dumps(content).encode()).decode()}


def test_nothing_of_a_statement_can_be_changed(people: People, policy: SignOffPolicy):
    made = statement(people)
    for change in (
        {"decision": "emergency"},
        {"by": "dan@example.com"},
        {"at": "2030-01-01T00:00:00Z"},
        {"request": "id2"},
        {"reason": "x"},
    ):
        with pytest.raises(SigningError, match="no good signature"):
            read_statement(changed(made, **change), policy, {})
    other = {**json.loads(base64.b64decode(made["payload"]))["predicate"]["subject"], "version": "5"}
    with pytest.raises(SigningError, match="its subject is not the one"):
        read_statement(changed(made, subject=other), policy, {})
    with pytest.raises(SigningError, match="not one of the people"):
        read_statement(changed(made, by="eve@example.com"), policy, {})
    with pytest.raises(SigningError, match="of the type"):
        read_statement({**made, "payloadType": "text/plain"}, policy, {})
    for at in ("soon", "2030-01-01T00:00:00"):
        with pytest.raises(SigningError, match="is none"):
            read_statement(changed(made, at=at), policy, {})
    for broken in ({}, {"payload": "x"}, {**made, "payload": "e30="}, {**made, "signatures": []}):
        with pytest.raises(SigningError):
            read_statement(broken, policy, {})


def test_a_signature_of_somebody_else_or_for_something_else_is_none(people: People, policy: SignOffPolicy):
    forged = make_statement("approve", "id1", "bea@example.com", SUBJECT, ssh_signer(Path(people.key("eve"))))
    with pytest.raises(SigningError, match="no good signature of bea"):
        read_statement(forged, policy, {})

    def for_git(message: bytes) -> tuple[str, bytes]:
        command = ["ssh-keygen", "-Y", "sign", "-q", "-n", "git", "-f", people.key("bea")]
        return "ssh", subprocess.run(command, input=message, capture_output=True, check=True).stdout

    with pytest.raises(SigningError, match="no good signature"):
        read_statement(make_statement("approve", "id1", "bea@example.com", SUBJECT, for_git), policy, {})

    made = statement(people)
    for kind, signature in (("ssh", b"x"), ("ssh", b"x" * 30_000), ("token", b"x.y.z"), ("other", b"x")):
        made["signatures"] = [
            {"keyid": f"{kind}:bea@example.com", "sig": base64.b64encode(signature).decode()}
        ]
        with pytest.raises(SigningError, match="no good signature"):
            read_statement(made, policy, {})


def test_keys_that_cannot_sign_are_told(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert ssh_keygen_signature.public_key_of(Path(people.key("bea"))) == people.public("bea")
    (tmp_path / "key").write_text("no key")
    with pytest.raises(ssh_keygen_signature.SshKeygenError, match="ssh-keygen: "):
        ssh_keygen_signature.sign(b"x", tmp_path / "key")
    with pytest.raises(ssh_keygen_signature.SshKeygenError):
        ssh_keygen_signature.public_key_of(tmp_path / "key")
    (tmp_path / "key.pub").write_text("word")
    with pytest.raises(ssh_keygen_signature.SshKeygenError, match="not an SSH public key"):
        ssh_keygen_signature.public_key_of(tmp_path / "key")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ssh_keygen_signature.SshKeygenError, match="apt install openssh-client"):
        ssh_keygen_signature.sign(b"x", Path(people.key("bea")))


def test_a_good_signature_is_verified_once(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A page that is open asks every few seconds; what was refused is asked for again, it may have been for want of memory."""
    signature = ssh_keygen_signature.sign(b"once", Path(people.key("bea")))
    keys = [people.public("bea")]
    assert ssh_keygen_signature.has_signed(b"once", signature, "bea", keys)
    assert not ssh_keygen_signature.has_signed(b"twice", signature, "bea", keys)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ssh_keygen_signature.has_signed(b"once", signature, "bea", keys)
    assert not ssh_keygen_signature.has_signed(b"once", signature, "bea", [])
    for message, who, public in (
        (b"twice", "bea", "bea"),
        (b"once", "dan", "bea"),
        (b"once", "bea", "dan"),
    ):
        with pytest.raises(ssh_keygen_signature.SshKeygenError, match="not installed"):
            ssh_keygen_signature.has_signed(message, signature, who, [people.public(public)])


def test_a_good_signature_is_remembered_by_all_that_it_depends_on(people: People):
    bea, dan = people.public("bea"), people.public("dan")
    signature = ssh_keygen_signature.sign(b"yes", Path(people.key("bea")))
    other = ssh_keygen_signature.sign(b"yes", Path(people.key("dan")))
    for _ in range(2):
        assert ssh_keygen_signature.has_signed(b"yes", signature, "bea", [bea])
        assert ssh_keygen_signature.has_signed(b"yes", other, "bea", [bea, dan])
        assert not ssh_keygen_signature.has_signed(b"no", signature, "bea", [bea])
        assert not ssh_keygen_signature.has_signed(b"yes", other, "bea", [bea])
        assert not ssh_keygen_signature.has_signed(b"yes", signature, "bea", [dan])
        assert not ssh_keygen_signature.has_signed(b"yes", signature, "bea", [])
