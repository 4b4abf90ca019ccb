"""`chips sign-off`, `request-approval`, `approve`, `reject`: by people with SSH keys, in registries of their own."""

import asyncio
import base64
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.cli.support import console
from gateway.registry.base import APPROVALS, EVIDENCE, MODELS, SIGN_OFF, Delete, Document, Put
from gateway.registry.sqlite import SqliteRegistry
from tests.flow.issuer import KeyServer, signer
from tests.unit.cli.shell import Ended, Shell
from tests.unit.signoff.people import People

ARTIFACT = "sha256:" + "a" * 64
IMAGE = "eu.pkg.dev/p/wine@sha256:" + "b" * 64


class Stage:
    """Two environments: qa, where wine@4 is, and prod, which wants two approvals."""

    def __init__(self, shell: Shell, folder: Path, people: People) -> None:
        self.shell, self.folder, self.people = shell, folder, people
        self.put("qa", MODELS, "wine", self.model())
        (folder / "sign-off.toml").write_text(people.policy())
        self.prod("sign-off", "set", "sign-off.toml")

    def model(self, **changes: Any) -> dict[str, Any]:
        backend = {"version": "4", "url": "http://qa", "artifact_digest": ARTIFACT, "image": IMAGE, **changes}
        return {"name": "wine", "backends": [backend], "traffic": {"4": 100}}

    def prod(self, *words: str) -> Ended:
        return self.shell.ok("--env", "prod", "--yes", *words)

    def refused(self, *words: str) -> Ended:
        ended = self.shell("--env", "prod", "--yes", *words)
        assert ended.code not in {0, 1}, ended
        return ended

    def request(self, *more: str, who: str = "ana") -> str:
        words = ("--from", "qa", "--to", "prod", "--ssh-key", self.people.key(who), "--json")
        identity: str = self.shell.ok("request-approval", *(more or ("wine@4",)), *words).json()["id"]
        return identity

    def approve(self, identity: str, *who: str) -> Ended:
        *_, ended = [self.prod("approve", identity, "--ssh-key", self.people.key(name)) for name in who]
        return ended

    def state(self, identity: str) -> dict[str, Any]:
        (found,) = self.prod("approvals", identity, "--json").json()
        return found  # type: ignore[no-any-return]

    def register(self, *more: str, ok: bool = True) -> Ended:
        """In prod, what was approved; `more` wins."""
        declared = self.folder / "declared.yaml"
        declared.write_text(json.dumps({"chips": 1, "models": {"wine": self.model(url="http://prod")}}))
        words = ("import", str(declared), "--yes", *more)
        return self.prod(*words) if ok else self.refused(*words)

    def put(self, env: str, kind: str, name: str, body: dict[str, Any] | None) -> None:
        """Write past the command line, as somebody with the database's rights does."""

        async def work() -> None:
            registry = SqliteRegistry(self.folder / f"{env}.db")
            known = await registry.read(kind, name)
            expected = known.revision if known is not None else 0
            change = (
                Delete(kind=kind, name=name, expected=expected)
                if body is None
                else Put(kind=kind, name=name, body=body, expected=expected)
            )
            await registry.write(change, author="mallory")
            await registry.close()

        asyncio.run(work())

    def read(self, env: str, kind: str, name: str) -> Document:
        async def work() -> Document | None:
            registry = SqliteRegistry(self.folder / f"{env}.db")
            found = await registry.read(kind, name)
            await registry.close()
            return found

        found = asyncio.run(work())
        assert found is not None
        return found


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture
def stage(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: People) -> Stage:
    environments = tmp_path / "environments.toml"
    environments.write_text(
        "".join(f'[{name}]\nregistry = "sqlite://{tmp_path}/{name}.db"\n' for name in ("qa", "prod"))
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(environments))
    monkeypatch.delenv("CHIPS_REGISTRY")
    return Stage(shell, tmp_path, people)


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
    assert (
        f"{identity}  wine@4: approved, asked for by ana@example.com" in stage.prod("approvals", identity).out
    )
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
    words = ("import", "other.yaml", "--yes")
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
    assert "the model's policy has changed" in stage.refused("import", "other.yaml", "--yes").err


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
        then.setattr("gateway.signoff.statement.now_rfc3339", lambda: long_ago)
        identity = stage.request()
        words = ("approve", identity, "--ssh-key", stage.people.key("bea"))
        assert "it has expired after 14 days" in stage.refused(*words).err
    with monkeypatch.context() as then:
        day = (datetime.now(UTC) - timedelta(days=13)).isoformat()
        then.setattr("gateway.signoff.statement.now_rfc3339", lambda: day)
        stage.approve(identity, "bea")
    stage.approve(identity, "dan")
    assert stage.state(identity)["approved"]
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    monkeypatch.setattr("gateway.signoff.statement.now_rfc3339", lambda: future)
    assert "which is to come" in stage.refused("approve", identity, "--ssh-key", stage.people.key("bea")).err


def test_evidence_is_asked_for_copied_and_bound(stage: Stage):
    stage.put("prod", SIGN_OFF, "policy", None)
    (stage.folder / "sign-off.toml").write_text(
        stage.people.policy(evidence='"verify"', approvals="approver = 1")
    )
    stage.prod("sign-off", "set", "sign-off.toml")
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
    assert "there is no evidence of the kind verify for wine@4" in stage.shell(*words).err
    body = {"model": "wine", "version": "4", "kind": "verify", "passed": False, "artifact_digest": ARTIFACT}
    stage.put("qa", EVIDENCE, "wine@4:verify", body)
    assert "says that it failed" in stage.shell(*words).err
    stage.put(
        "qa", EVIDENCE, "wine@4:verify", {**body, "passed": True, "artifact_digest": "sha256:" + "c" * 64}
    )
    assert "is about another artifact" in stage.shell(*words).err
    stage.put("qa", EVIDENCE, "wine@4:verify", {**body, "passed": True})
    identity = stage.request()
    assert stage.read("prod", EVIDENCE, "wine@4:verify").body["passed"] is True
    stage.approve(identity, "bea")
    assert "evidence verify" in stage.prod("approvals", identity).out
    stage.put("prod", EVIDENCE, "wine@4:verify", {**body, "passed": True, "more": 1})
    assert "the evidence has changed" in stage.register(ok=False).err
    stage.put("prod", EVIDENCE, "wine@4:verify", {**body, "passed": True})
    stage.register()


def test_an_emergency_is_loud_and_is_reviewed(stage: Stage):
    identity = stage.request()
    words = ("approve", identity, "--emergency", "--ssh-key")
    assert stage.refused(*words, stage.people.key("cy")).code == console.EX_USAGE, "it needs a reason"
    reason = ("--reason", "production is down")
    assert "does not let this person alone" in stage.refused(*words, stage.people.key("bea"), *reason).err
    ended = stage.prod(*words, stage.people.key("cy"), *reason)
    assert "EMERGENCY by cy@example.com: a review is due by 20" in ended.out
    ended = stage.register()
    assert "EMERGENCY: wine@4 goes into service on the word of cy@example.com alone" in ended.err
    assert stage.state(identity)["review_due"]
    stage.prod("approve", identity, "--review", "--ssh-key", stage.people.key("cy"))
    assert stage.state(identity)["review_due"], "nobody reviews themselves"
    ended = stage.prod("approve", identity, "--review", "--ssh-key", stage.people.key("bea"))
    assert "reviewed" in ended.out
    assert not stage.state(identity)["review_due"]


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
    stage.shell.ok("--env", "qa", "import", "declared.yaml", "--yes")


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


def test_an_identity_token_of_an_issuer(stage: Stage, tmp_path: Path):
    """The command gets the audience, asks the issuer, and prints a token, as gcloud does."""
    with asyncio.Runner() as runner:
        server = KeyServer(signer())
        runner.run(server.__aenter__())
        loop = runner.get_loop()
        thread = threading.Thread(
            target=loop.run_forever
        )  # while commands, each with a loop of its own, ask it
        thread.start()
        try:
            _approve_by_token(stage, tmp_path, server.issuer)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.run(server.__aexit__())


def _approve_by_token(stage: Stage, folder: Path, issuer: str) -> None:
    token = f'{{ issuer = "{issuer}", email = "gil@example.com" }}'
    more = f'[[people]]\nname = "gil@example.com"\nroles = ["approver"]\ntokens = [{token}]\n'
    stage.put("prod", SIGN_OFF, "policy", None)
    (folder / "sign-off.toml").write_text(stage.people.policy(more=more))
    stage.prod("sign-off", "set", "sign-off.toml")
    identity = stage.request()

    def command(email: str, audience: str = "{audience}") -> str:
        return f"{sys.executable} {folder / 'mint.py'} {issuer} {email} {audience}"

    key = signer().key
    (folder / "issuer.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "mint.py").write_text(
        "import sys, time, jwt\nfrom pathlib import Path\n"
        "issuer, email, audience = sys.argv[1:]\nnow = int(time.time())\n"
        "claims = {'iss': issuer, 'aud': audience, 'sub': '1', 'email': email, 'email_verified': True, 'iat': now, 'exp': now + 600}\n"
        f"key = Path({str(folder / 'issuer.pem')!r}).read_bytes()\n"
        "print(jwt.encode(claims, key, algorithm='RS256', headers={'kid': 'k1'}))\n"
    )
    words = ("approve", identity, "--as", "gil@example.com", "--token-command")
    assert "could not be signed" in stage.refused(*words, command("eve@example.com")).err
    assert "could not be signed" in stage.refused(*words, command("gil@example.com", "https://gateway")).err
    assert stage.refused(*words, "/no/such/program").code == console.EX_DATAERR
    assert (
        "say whose token"
        in stage.refused("approve", identity, "--token-command", command("gil@example.com")).err
    )
    stage.prod(*words, command("gil@example.com"))
    stage.approve(identity, "bea")
    assert stage.state(identity)["approved_by"] == ["gil@example.com", "bea@example.com"]
    stage.register()
