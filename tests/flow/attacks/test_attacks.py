"""The attack suite: nobody gets in, nothing falls over, and each refusal is logged once, with its reason, without secrets."""

import json
import math

import pytest

from gateway.core.model import Policy
from tests.flow.attacks.attempts import GROUPS, INSIDE, Attempt, Known
from tests.flow.issuer import KeyServer, setting, signer
from tests.flow.scene import Scene
from tests.flow.scripted import Message, request

CREDENTIALS = frozenset(
    {"x-api-key", "authorization", "cookie", "proxy-authorization", "x-api-token", "apikey", "api-key"}
)


def flags(url: str) -> dict[str, str]:
    return {
        "edge.networks": "192.0.2.0/24",
        "edge.trusted_hops": "1",
        "auth.issuers": setting(url, models=["open-wine"]),
        "auth.certificates": json.dumps([{"name": "mesh", "subjects": ["spiffe://acme/*"]}]),
    }


async def equip(scene: Scene) -> Known:
    known = Known(
        good=await scene.make_key("*"),
        own=await scene.make_key("open-wine"),
        expired=await scene.make_key("*", expires="2026-01-02T00:00:00Z"),
        revoked=await scene.make_key("*"),
        elsewhere=await scene.make_key("*", networks=("198.51.100.0/24",)),
        reader=await scene.make_key("*", verbs=("metadata",)),
    )
    await scene.revoke_key(known.revoked)
    return known


def on_the_wire(attempt: Attempt) -> bytes:
    if attempt.raw is not None:
        return attempt.raw
    fields = list(attempt.fields)
    if attempt.address is not None:
        fields.append(("X-Forwarded-For", attempt.address))
    return request(attempt.method, attempt.target, body=attempt.body, fields=fields)


async def test_there_are_as_many_attempts_as_promised():
    known = Known(*("chips_" + letter * 38 for letter in "abcdef"))
    attempts = [attempt for group in GROUPS.values() for attempt in group(known)]
    assert len({attempt.name for attempt in attempts}) == len(attempts) >= 300


@pytest.mark.parametrize("group", GROUPS)
async def test_no_attempt_gets_in(group: str, caplog: pytest.LogCaptureFixture):
    async with KeyServer(signer(), signer("e1", "ES256")) as keys, Scene(**flags(keys.url)) as scene:
        vault = await scene.model("vault")
        own = await scene.model("open-wine", policy=Policy(access="key"))
        known = await equip(scene)
        attempts = list(GROUPS[group](known))
        answers = [(attempt, await scene.raw(on_the_wire(attempt))) for attempt in attempts]
        unexpected = [
            f"{attempt.name}: {answer.status} {answer.get('chips-error')} instead of {attempt.status} {attempt.code}"
            for attempt, answer in answers
            if (answer.status, answer.get("chips-error")) != (attempt.status, attempt.code)
        ]
        assert not unexpected, "\n".join(unexpected)
        assert vault.seen == []
        assert own.seen == []
        inside = [("X-Forwarded-For", INSIDE)]
        assert (await scene.call("POST", "/vault", key=known.good, fields=inside)).status == 200
        assert keys.asked <= 2
        _check_log(scene.log_lines(), caplog.messages, answers, known)


def _check_log(
    lines: list[dict[str, object]], messages: list[str], answers: list[tuple[Attempt, Message]], known: Known
) -> None:
    by_request: dict[object, list[dict[str, object]]] = {}
    for line in lines:
        if "httpRequest" in line:
            by_request.setdefault(line["request_id"], []).append(line)
    unparsed = [message for message in messages if "cannot be parsed" in message]
    for attempt, answer in answers:
        told = by_request.get(answer.get("X-Request-Id"), [])
        if told:
            assert [line.get("error") for line in told] == [attempt.code], attempt.name
            assert told[0].get("detail"), attempt.name
        else:  # refused before it was a request at all
            assert attempt.code == "bad-request", attempt.name
            request_id = str(answer.get("X-Request-Id"))
            (found,) = [message for message in unparsed if request_id in message]
            unparsed.remove(found)
    assert not unparsed
    assert not any("stack" in line for line in lines)
    text = json.dumps([lines, messages])
    secrets = {
        value.removeprefix("Bearer ")
        for attempt, _ in answers
        for name, value in attempt.fields
        if name.lower() in CREDENTIALS and len(value) >= 20
    }
    for secret in (*secrets, *known):
        assert secret not in text, secret[:40]
    answered = json.dumps([answer.body.decode("latin-1") + str(answer.fields) for _, answer in answers])
    for secret in (*secrets, *known):
        assert secret not in answered, secret[:40]


async def test_what_is_smuggled_beside_a_good_key_reaches_no_backend():
    """The caller is welcome; what they say about themselves is not."""
    smuggled = (
        "X-Chips-Caller", "X_Chips_Caller", "X-CHIPS-CALLER", "X-Chips-Caller-Token", "X-Chips-Anything", "X-Goog-Iap-Jwt-Assertion",
        "X-Goog-Authenticated-User-Email", "X_Goog_Authenticated_User_Email", "X-Endpoint-Api-Userinfo", "X-Apigateway-Api-Userinfo",
        "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Client-Cert", "X-Forwarded-Host", "X-Forwarded-Port",
        "X-Forwarded-Authorization", "X-Serverless-Authorization", "X-Auth-Request-User", "X-Remote-User", "Remote-User", "X-Ssl-Client-Dn",
        "Ssl-Client-Cert", "X-Client-Cert-Spiffe-Id", "X-Amzn-Oidc-Data", "X-Ms-Client-Principal", "X-Original-Url", "X-Rewrite-Url",
        "X-Real-Ip", "True-Client-Ip", "Forwarded", "Proxy-Authorization", "X-Api-Key-2",
    )  # fmt: skip
    async with Scene() as scene:
        backend = await scene.model("wine")
        fields = [(name, "smuggled") for name in smuggled[:-1]]
        assert (await scene.call(fields=fields)).status == 200
        (seen,) = backend.seen
        assert "smuggled" not in str(seen.fields)
        assert scene.key not in str(seen.fields)
        assert seen.all("X-Forwarded-For") == ["127.0.0.1"]
        assert len(seen.all("X-Chips-Caller")) == 1


async def test_what_one_caller_showed_serves_no_other():
    """Remembered credentials are remembered for themselves alone, in whatever order they come."""
    async with KeyServer(signer()) as keys, Scene(**flags(keys.url)) as scene:
        await scene.model("vault")
        await scene.model("open-wine")
        known = await equip(scene)
        token = signer().token()
        inside = [("X-Forwarded-For", INSIDE)]
        bearer = [*inside, ("Authorization", f"Bearer {token}")]
        for _ in range(3):
            assert (await scene.call("POST", "/vault", key=known.good, fields=inside)).status == 200
            assert (await scene.call("POST", "/vault", key=known.own, fields=inside)).status == 403
            assert (await scene.call("POST", "/open-wine", key=None, fields=bearer)).status == 200
            assert (await scene.call("POST", "/vault", key=None, fields=bearer)).status == 403
            assert (await scene.call("POST", "/vault", key=known.good[:-1], fields=inside)).status == 401
            assert (await scene.call("POST", "/vault", key=None, fields=inside)).status == 401
            shorter = [*inside, ("Authorization", f"Bearer {token[:-1]}")]
            assert (await scene.call("POST", "/open-wine", key=None, fields=shorter)).status == 401


async def test_many_unknown_keys_and_tokens_leave_memory_and_issuer_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.auth.jwks._RETRY_S", math.inf)
    async with KeyServer(signer()) as keys, Scene(**flags(keys.url)) as scene:
        await scene.model("vault")
        await equip(scene)
        for number in range(50):
            token = signer().token(header={"kid": f"x{number}"})
            answer = await scene.call(
                "POST",
                "/vault",
                key=None,
                fields=[("X-Forwarded-For", INSIDE), ("Authorization", f"Bearer {token}")],
            )
            assert answer.status == 401
        assert keys.asked == 1
