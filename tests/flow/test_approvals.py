"""The operators' pages of approvals fail closed: who may ask, from where a decision may come, what is taken."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.api_key_document import Key
from gateway.core.api_keys import digest_key, make_key
from gateway.core.model_updates import to_document
from gateway.core.principal import VERBS
from gateway.registry.base import APPROVALS, KEYS, SIGN_OFF, SIGN_OFF_POLICY, Put
from gateway.signoff.approval_requests import derive_request_id
from gateway.signoff.externally_signed_decisions import prepare_statement
from gateway.signoff.in_toto_statement import Decision, ssh_signer, unsigned_statement
from gateway.signoff.read_sign_off_records import read_policy_and_records
from tests.console.sign_off_scene import SignOffScene
from tests.flow.scene import Scene, assert_problem
from tests.unit.signoff.people import People

ORIGIN = "http://chips"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


class Desk:
    """An operator at the gateway, and a request that waits."""

    def __init__(self, scene: Scene, people: People) -> None:
        self.scene, self.people = scene, people
        self.sign_off = SignOffScene(scene.registry, people)
        self.operator = ""

    async def begin(self) -> None:
        self.operator = make_key()
        document = Key(label="operator", models=("*",), verbs=VERBS, created="2026-01-01T00:00:00Z")
        change = Put(kind=KEYS, name=digest_key(self.operator), body=to_document(document), expected=0)
        await self.scene.registry.write(change, author="ana")
        await self.sign_off.begin()

    async def signed(
        self, who: str, decision: Decision = "approve", *, key: str = "", reason: str = ""
    ) -> bytes:
        records = await read_policy_and_records(self.scene.registry)
        assert records is not None
        document = next(one for one in records.requests if one.name == self.sign_off.id)
        made = prepare_statement(document, records, decision, f"{who}@example.com", reason)
        return self.envelope(made.payload, made.signed_bytes, key or who)

    def envelope(self, payload: bytes, signed_bytes: bytes, key: str) -> bytes:
        _, signature = ssh_signer(Path(self.people.key(key)))(signed_bytes)
        content = {
            "payload": base64.b64encode(payload).decode(),
            "kind": "ssh",
            "signature": signature.decode(),
        }
        return json.dumps(content).encode()

    async def hand_in(self, body: bytes, *, key: str | None = "", **fields: str | None) -> Any:
        headers = {
            "Origin": ORIGIN,
            "Sec-Fetch-Site": "same-origin",
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        return await self.scene.call(
            "POST",
            f"/-/approvals/{self.sign_off.id}",
            body=body,
            fields=[(name, value) for name, value in headers.items() if value is not None],
            key=self.operator if key == "" else key,
        )

    async def decisions(self) -> int:
        found = await self.scene.registry.read(APPROVALS, self.sign_off.id)
        assert found is not None
        return len(found.body["decisions"])


@pytest.fixture
async def desk(scene: Scene, people: People) -> Desk:
    desk = Desk(scene, people)
    await desk.begin()
    return desk


async def test_a_decision_from_the_console_is_written(desk: Desk):
    answer = await desk.hand_in(await desk.signed("bea", reason="I have looked"))
    assert (answer.status, answer.json()) == (200, {"decision": "approve", "by": "bea@example.com"})
    assert await desk.decisions() == 1
    (change, *_) = await desk.scene.registry.history(kind=APPROVALS)
    assert (change.author, change.reason) == ("bea@example.com", "approved: I have looked")


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": None},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
)
async def test_a_decision_from_elsewhere_is_refused(desk: Desk, fields: dict[str, str | None]):
    answer = await desk.hand_in(await desk.signed("bea"), **fields)
    assert_problem(answer, 403, "forbidden")
    assert await desk.decisions() == 0


async def test_only_an_operator_hands_in(desk: Desk):
    body = await desk.signed("bea")
    assert (await desk.hand_in(body, key=desk.scene.key)).status == 403
    assert (await desk.hand_in(body, key=None)).status == 401
    assert (await desk.hand_in(body, key=make_key())).status == 401
    for path in ("/-/approvals", f"/-/approvals/{desk.sign_off.id}", "/-/emergencies"):
        assert (await desk.scene.call("GET", path, body=None, key=desk.scene.key)).status == 403
    assert await desk.decisions() == 0


@pytest.mark.parametrize(
    ("who", "decision", "key", "told"),
    [
        ("bea", "approve", "eve", "bears no good signature"),
        ("ana", "approve", "", "nobody approves what they have asked for themselves"),
        ("ana", "reject", "", "has no role that approves"),
    ],
)
async def test_who_may_not_decide_decides_nothing(
    desk: Desk, who: str, decision: Decision, key: str, told: str
):
    answer = await desk.hand_in(await desk.signed(who, decision, key=key, reason="so"))
    assert told in assert_problem(answer, 403, "forbidden")["detail"]
    assert await desk.decisions() == 0


async def test_an_emergency_or_an_old_statement_is_not_taken(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    from securesystemslib.dsse import Envelope

    from gateway.signoff.in_toto_statement import PAYLOAD_TYPE

    def made(decision: Decision, who: str) -> bytes:
        payload = unsigned_statement(
            decision, desk.sign_off.id, f"{who}@example.com", desk.sign_off.subject, reason="so"
        )
        return desk.envelope(payload, Envelope(payload, PAYLOAD_TYPE, {}).pae(), who)

    alone = await desk.hand_in(made("emergency", "cy"))
    assert "use chips approve at a terminal" in assert_problem(alone, 403, "forbidden")["detail"]
    monkeypatch.setattr("gateway.signoff.in_toto_statement.now_rfc3339", lambda: "2026-01-01T00:00:00Z")
    old = await desk.hand_in(made("approve", "bea"))
    assert "too old" in assert_problem(old, 403, "forbidden")["detail"]
    assert await desk.decisions() == 0


async def test_whose_approval_has_expired_may_approve_again(desk: Desk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.signoff.in_toto_statement.now_rfc3339", lambda: "2026-01-01T00:00:00Z")
        await desk.sign_off.decide("approve", "bea")
    assert (await desk.sign_off.verdict())["by"] == []
    answer = await desk.hand_in(await desk.signed("bea"))
    assert answer.status == 200
    assert (await desk.sign_off.verdict())["by"] == ["bea@example.com"]


async def test_what_is_shown_is_what_is_decided_on(desk: Desk):
    """Not another environment's request, nor one under another title, or under the id of another one."""
    signed = await desk.signed("bea")
    found = await desk.scene.registry.read(APPROVALS, desk.sign_off.id)
    assert found is not None

    async def put(name: str, body: dict[str, Any]) -> None:
        known = await desk.scene.registry.read(APPROVALS, name)
        change = Put(
            kind=APPROVALS, name=name, body=body, expected=known.revision if known is not None else 0
        )
        await desk.scene.registry.write(change, author="mallory")

    async def assert_refused(told: str) -> None:
        path = f"/-/approvals/{desk.sign_off.id}"
        shown = await desk.scene.call("GET", path, body=None, key=desk.operator)
        assert shown.json()["state"] == "open"
        assert any(told in problem for problem in shown.json()["problems"])
        query = "decision=approve&by=bea%40example.com"
        made = await desk.scene.call("GET", f"{path}/statement?{query}", body=None, key=desk.operator)
        assert told in assert_problem(made, 400, "bad-request")["detail"]
        assert told in assert_problem(await desk.hand_in(signed), 403, "forbidden")["detail"]

    identity = desk.sign_off.id
    await put(identity, {**found.body, "title": "beer@2"})
    await assert_refused("was asked for wine@4")
    desk.sign_off.id = "0" * 32
    await put(desk.sign_off.id, found.body)
    await assert_refused("another one was put in its place")
    desk.sign_off.subject = msgspec.structs.replace(desk.sign_off.subject, environment="prod")
    asked = desk.sign_off.statement("request", "", "ana", "harmless")
    desk.sign_off.id = derive_request_id(asked)
    await put(desk.sign_off.id, {**found.body, "request": asked})
    await assert_refused("it was asked for another environment")


@pytest.mark.parametrize(
    "damage",
    [
        {"payloadType": None},
        {"payloadType": 7},
        {"payload": []},
        {"signatures": [{"keyid": None, "sig": "AAAA"}]},
        {"signatures": [{"keyid": "ssh:ana@example.com", "sig": 7}]},
        {"signatures": [7]},
        {"signatures": None},
    ],
)
@pytest.mark.parametrize("part", ["request", "decision"])
async def test_one_damaged_request_hides_no_other(desk: Desk, damage: dict[str, Any], part: str):
    found = await desk.scene.registry.read(APPROVALS, desk.sign_off.id)
    assert found is not None
    damaged = {**found.body["request"], **damage}
    body = {**found.body, **({"request": damaged} if part == "request" else {"decisions": [damaged]})}
    change = Put(kind=APPROVALS, name="f" * 32, body=body, expected=0)
    await desk.scene.registry.write(change, author="mallory")
    listed = await desk.scene.call("GET", "/-/approvals", body=None, key=desk.operator)
    assert {one["id"]: one["state"] for one in listed.json()["requests"]} == {
        desk.sign_off.id: "open",
        "f" * 32: "open",
    }
    assert (await desk.hand_in(await desk.signed("bea"))).status == 200


async def test_a_rejection_that_was_withdrawn_cannot_be_handed_in_again(desk: Desk):
    """Otherwise anyone who has seen it could stop the version for good, without a signature of their own."""
    rejection = await desk.signed("bea", "reject", reason="too slow")
    assert (await desk.hand_in(rejection)).status == 200
    assert (await desk.hand_in(await desk.signed("bea"))).status == 200
    again = await desk.hand_in(rejection)
    assert "it is there already" in assert_problem(again, 403, "forbidden")["detail"]
    assert (await desk.sign_off.verdict())["by"] == ["bea@example.com"]
    assert await desk.decisions() == 2


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[" * 60_000, {}),
        (b'{"payload": 1, "kind": "ssh", "signature": ""}', {}),
        (b'{"payload": "!", "kind": "ssh", "signature": ""}', {}),
        ('{"payload": "\u00e9", "kind": "ssh", "signature": ""}'.encode(), {}),
        (b'{"payload": "e30=", "kind": "ssh", "signature": "", "more": 1}', {}),
        (b'{"payload": "e30=", "kind": "ssh", "signature": ""}', {"Content_Type": "text/plain"}),
    ],
)
async def test_what_is_no_decision_is_a_bad_request(desk: Desk, body: bytes, fields: dict[str, str | None]):
    assert_problem(await desk.hand_in(body, **fields), 400, "bad-request")


async def test_a_body_that_is_no_statement_is_refused(desk: Desk):
    for payload in (b"{}", b"[]", b"null", b'{"predicate": {"by": 1}}', b"\xff"):
        body = {"payload": base64.b64encode(payload).decode(), "kind": "ssh", "signature": "x"}
        assert_problem(await desk.hand_in(json.dumps(body).encode()), 403, "forbidden")
    too_long = {"payload": "A" * 100_000, "kind": "ssh", "signature": "x"}
    assert (await desk.hand_in(json.dumps(too_long).encode())).status == 413


async def test_other_methods_and_requests_are_refused(desk: Desk):
    path = f"/-/approvals/{desk.sign_off.id}"
    assert (await desk.scene.call("PUT", path, body=b"{}", key=desk.operator)).status == 405
    assert (await desk.scene.call("POST", "/-/approvals", body=b"{}", key=desk.operator)).status == 405
    for other in ("nothing", f"{desk.sign_off.id}/more", "%20"):
        assert (
            await desk.scene.call("GET", f"/-/approvals/{other}", body=None, key=desk.operator)
        ).status == 404


async def test_a_policy_that_cannot_be_read_shows_and_takes_nothing(desk: Desk):
    body = await desk.signed("bea")
    damaged = Put(kind=SIGN_OFF, name=SIGN_OFF_POLICY, body={"people": 7}, expected=1)
    await desk.scene.registry.write(damaged, author="mallory")
    assert (await desk.scene.call("GET", "/-/approvals", body=None, key=desk.operator)).status == 503
    assert (await desk.hand_in(body)).status == 503
    assert await desk.decisions() == 0


async def test_a_request_whose_proposal_was_exchanged_shows_no_difference(scene: Scene, people: People):
    """Somebody with the database's rights shows approvers a harmless change."""
    desk = Desk(scene, people)
    desk.operator = make_key()
    document = Key(label="operator", models=("*",), verbs=VERBS, created="2026-01-01T00:00:00Z")
    await scene.registry.write(
        Put(kind=KEYS, name=digest_key(desk.operator), body=to_document(document), expected=0), author="ana"
    )
    other = {**to_document(desk.sign_off.model), "policy": {"timeout_s": 7}}
    await desk.sign_off.begin(proposal=other)
    answer = await scene.call("GET", f"/-/approvals/{desk.sign_off.id}", body=None, key=desk.operator)
    found = answer.json()
    assert found["differences"] == []
    assert "is not what was signed" in found["differences_problem"]
