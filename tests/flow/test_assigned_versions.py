"""Which version a request gets: by weight, by a sticky share, or because its caller pins it; and what is told of that."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.core.model import Backend, Model, Policy
from gateway.core.sticky_shares import StickyShares
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer, Script, ScriptedBackend, echo

SEED = "000102030405060708090a0b0c0d0e0f"
USERS = [f"user-{number}" for number in range(24)]


async def split(
    scene: Scene, by: str, share: int = 50, policy: Policy | None = None
) -> list[ScriptedBackend]:
    """The model wine with two versions; the backends of both."""
    one, two = await scene.model("one"), await scene.model("two")
    await scene.put_model(wine(one, two, by, share, policy))
    return [one, two]


def wine(
    one: ScriptedBackend, two: ScriptedBackend, by: str, share: int = 50, policy: Policy | None = None
) -> Model:
    return Model(
        name="wine",
        backends=(Backend(version="1", url=one.url), Backend(version="2", url=two.url)),
        traffic={"1": 100 - share, "2": share},
        sticky=StickyShares(by=by, seed=SEED) if by else None,
        policy=policy or Policy(),
    )


def version(answer: Message) -> str:
    assert answer.status == 200, answer.body
    return (answer.get("X-Chips-Model") or "").partition("@")[2]


async def versions(scene: Scene, calls: Sequence[dict[str, Any]]) -> list[str]:
    return [version(await scene.call(**call)) for call in calls]


def by_header(*names: str) -> list[dict[str, Any]]:
    return [{"fields": [("X-User", name)]} for name in names]


async def test_a_header_decides_at_every_gateway_and_only_new_callers_move(scene: Scene):
    one, two = await split(scene, "header:x-user", 20)
    first = await versions(scene, by_header(*USERS))
    assert set(first) == {"1", "2"}
    async with scene.another_gateway():
        assert await versions(scene, by_header(*USERS)) == first
    await scene.put_model(wine(one, two, "header:x-user", 60))
    then = await versions(scene, by_header(*USERS))
    assert [pair for pair in zip(first, then, strict=True) if pair == ("2", "1")] == []
    assert first != then
    assert one.seen[0].get("X-User") in USERS, "the field goes on to the backend"


async def test_the_header_counts_also_where_the_head_is_remembered(scene: Scene):
    await split(scene, "header:x-user")
    caller = await scene.caller()
    found: dict[str, set[str]] = {}
    for user in USERS[:8] * 3:
        await caller.send(scene.request(fields=[("x-USER", user)]))
        found.setdefault(user, set()).add(version(await caller.answer()))
    assert all(len(one) == 1 for one in found.values())
    assert len(set.union(*found.values())) == 2


async def test_a_caller_stays_with_a_key_that_replaces_the_old_one(scene: Scene):
    await split(scene, "caller")
    labels = [f"app {number}" for number in range(12)]
    old = [await scene.make_key("*", label=label) for label in labels]
    new = [await scene.make_key("*", label=label) for label in labels]
    first = await versions(scene, [{"key": key} for key in old])
    assert set(first) == {"1", "2"}
    assert await versions(scene, [{"key": key} for key in new]) == first


async def test_each_key_by_itself(scene: Scene):
    await split(scene, "key")
    keys = [
        await scene.make_key("*") for _ in range(48)
    ]  # all with one label; one version gets none once in 10^14 runs
    first = await versions(scene, [{"key": key} for key in keys])
    assert set(first) == {"1", "2"}
    assert await versions(scene, [{"key": key} for key in keys]) == first


@pytest.mark.parametrize(
    ("by", "body"),
    [
        ("field:parameters.customer", {"instances": [[1]], "parameters": {"customer": "USER"}}),
        ("field:instances.0.id", {"instances": [{"id": "USER"}, {"id": 5}]}),
        ("field:id", {"id": "USER", "inputs": []}),
    ],
)
async def test_a_field_of_the_body_decides(scene: Scene, by: str, body: dict[str, Any]):
    backends = await split(scene, by)
    calls = [{"body": json.dumps(body).replace("USER", user).encode()} for user in USERS]
    first = await versions(scene, calls)
    assert set(first) == {"1", "2"}
    assert await versions(scene, calls) == first
    sent = [seen.body for backend in backends for seen in backend.seen]
    assert sorted(sent) == sorted(call["body"] for call in calls * 2), "the body arrives as it was"


async def test_a_number_is_the_same_however_it_is_written(scene: Scene):
    await split(scene, "field:id")
    for number in range(12):
        written = [b'{"id": %d}', b'{"id": %d.0}', b'{"id": "%d"}', b' { "x": [1, {}], "id":\n%d }']
        assert len(set(await versions(scene, [{"body": form % number} for form in written]))) == 1


NOT_THERE = [
    b"",
    b"{}",
    b'{"id": ""}',
    b'{"id": null}',
    b'{"id": {"a": 1}}',
    b'{"id": [1]}',
    b"[1]",
    b"not JSON",
    b'{"id": "cut',
    b'{"id": "\xff"}',
    b'{"id": 1e999}',
    b"[" * 60_000,
    json.dumps({"id": "x", "more": "y" * 70_000}).encode(),
]


@pytest.mark.parametrize("body", NOT_THERE, ids=range(len(NOT_THERE)))
async def test_without_a_value_a_request_is_drawn_by_weight(scene: Scene, body: bytes):
    await split(scene, "field:id")
    await scene.call(body=body)
    (line,) = requests_of(scene)
    assert line["assigned"] == "weight"
    assert "unit" not in line


async def test_a_caller_without_the_header_or_a_name_is_drawn_by_weight(scene: Scene):
    for by, calls in (
        ("header:x-user", [{}, *by_header("")] * 20),
        ("caller", [{"key": None}] * 40),
    ):
        await split(scene, by, policy=Policy(access="public"))
        assert set(await versions(scene, calls)) == {"1", "2"}  # else once in 10^12 runs
    assert {(line["assigned"], line.get("unit")) for line in requests_of(scene)} == {("weight", None)}


def requests_of(scene: Scene) -> list[dict[str, Any]]:
    return [line for line in scene.log_lines() if line.get("model") == "wine"]


async def test_the_log_says_why_and_for_whom_but_never_the_value(scene: Scene):
    await split(scene, "header:x-user")
    tester = await scene.make_key("wine", verbs=("score", "metadata", "pin"))
    await versions(scene, by_header("ana.secret@example.com") * 2)
    await scene.call(key=tester, fields=[("X-Chips-Version", "2"), ("X-User", "ana")])
    await scene.call("POST", "/v2/models/wine/versions/1/infer", fields=[("X-User", "ana")])
    await scene.call()
    lines = requests_of(scene)
    assert [line["assigned"] for line in lines] == ["sticky", "sticky", "pin", "pin", "weight"]
    assert [line["version"] for line in lines[2:4]] == ["2", "1"]
    units = [line.get("unit") for line in lines]
    assert units[0] == units[1]
    assert len(units[0] or "") == 16
    assert units[2:] == [None, None, None]
    assert "secret" not in json.dumps(lines)


async def test_where_one_version_has_everything_nothing_is_told(scene: Scene):
    await scene.model("wine")
    await scene.call()
    assert "assigned" not in requests_of(scene)[0]


# -- pins


async def test_a_tester_pins_a_version_whatever_its_share(scene: Scene):
    one, two = await split(scene, "", 0)
    tester = await scene.make_key("wine", verbs=("score", "metadata", "pin"))
    for target in ("/wine", "/wine/deep", "/v2/models/wine/infer", "/v2/models/wine/versions/2/infer"):
        answer = await scene.call("POST", target, key=tester, fields=[("X-Chips-Version", "2")])
        assert version(answer) == "2"
    assert not one.seen
    assert two.seen[0].get("X-Chips-Version") is None, "it ends here"


async def test_who_may_not_pin_is_refused_and_not_served_another_version(scene: Scene):
    one, two = await split(scene, "header:x-user")
    elsewhere = await scene.make_key("iris", verbs=("score", "metadata", "pin"))
    for key in ("", elsewhere):
        answer = await scene.call(key=key, fields=[("X-Chips-Version", "1"), ("X-User", "ana")])
        assert_problem(answer, 403, "forbidden")
    assert one.seen == two.seen == []


async def test_at_a_public_model_a_tester_may_pin_and_a_stranger_may_not(scene: Scene):
    await split(scene, "", 0, policy=Policy(access="public"))
    tester = await scene.make_key("wine", verbs=("score", "pin"))
    pin = [("X-Chips-Version", "2")]
    assert version(await scene.call(key=tester, fields=pin)) == "2"
    assert_problem(await scene.call(key=None, fields=pin), 403, "forbidden")
    assert_problem(await scene.call(fields=pin), 403, "forbidden")
    assert version(await scene.call(key=None)) == "1"


async def test_a_pin_that_cannot_be_had_is_an_error(scene: Scene):
    one, two = await split(scene, "", 0)
    tester = await scene.make_key("wine", verbs=("score", "pin"))

    async def pinned(version: str, target: str = "/wine") -> Message:
        return await scene.call("POST", target, key=tester, fields=[("X-Chips-Version", version)])

    assert_problem(await pinned("3"), 404, "model-not-found")
    assert_problem(await pinned(""), 404, "model-not-found")
    assert_problem(await pinned("2", "/v2/models/wine/versions/1/infer"), 400, "bad-request")
    both = [("X-Chips-Version", "1"), ("X-Chips-Version", "2")]
    assert_problem(await scene.call(key=tester, fields=both), 400, "bad-request")
    assert one.seen == two.seen == []


@pytest.mark.path("fast")  # the plain one sends no POST again
async def test_a_request_that_is_sent_again_stays_with_its_version(scene: Scene):
    """The backend has closed the connection that the request was sent on."""
    backends = await split(scene, "header:x-user", policy=Policy(pure=True))
    caller = await scene.caller()

    async def all_of() -> list[str]:
        found = []
        for user in USERS:
            await caller.send(scene.request(fields=[("X-User", user)]))
            found.append(version(await caller.answer()))
        return found

    answers = await all_of()
    opened = [backend.connections for backend in backends]
    for backend in backends:
        backend.script = _end_the_first()
    assert await all_of() == answers
    assert all(backend.connections > before for backend, before in zip(backends, opened, strict=True))


def _end_the_first() -> Script:
    """A script that closes the connection of the first request unanswered."""
    ended: list[Peer] = []

    async def script(request: Message, peer: Peer) -> None:
        if not ended:
            ended.append(peer)
            peer.abort()
        else:
            await echo(request, peer)

    return script
