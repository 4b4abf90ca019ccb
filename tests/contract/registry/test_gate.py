"""What comes between the gate's check and the write, on every registry: nothing that was not approved is written."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.cli.support import console
from gateway.core.model import parse_model
from gateway.registry.base import (
    APPROVALS,
    MODELS,
    SIGN_OFF,
    SIGN_OFF_POLICY,
    Conflict,
    Delete,
    Put,
    Registry,
)
from gateway.registry.open_by_url import open_registry
from gateway.settings import Settings, load_settings
from gateway.signoff.approval_requests import (
    ApprovalRequest,
    derive_request_id,
    find_request,
    with_decision_and_keys,
)
from gateway.signoff.approval_subject import Subject, subject_of
from gateway.signoff.environment_policy import parse_policy_toml, policy_digest
from gateway.signoff.in_toto_statement import Decision, make_statement, ssh_signer
from tests.unit.signoff.people import People

WINE: dict[str, Any] = {
    "name": "wine",
    "backends": [{"version": "4", "url": "http://prod", "artifact_digest": "sha256:" + "a" * 64}],
    "traffic": {"4": 100},
}
PUT_WINE = Put(kind=MODELS, name="wine", body=WINE, expected=0)


class Scene:
    """An environment with a sign-off policy and one approved request, which `between` changes before the write arrives."""

    def __init__(self, settings: Settings, people: People) -> None:
        self.settings, self.people = settings, people
        self.registry = open_registry(settings.registry)
        self.policy: dict[str, Any] = msgspec.to_builtins(parse_policy_toml(people.policy()))

    async def begin(self) -> None:
        await self.registry.write(
            Put(kind=SIGN_OFF, name=SIGN_OFF_POLICY, body=self.policy, expected=0), author="ana"
        )
        model = parse_model(WINE)
        self.subject = subject_of(
            model,
            model.backends[0],
            environment=(await self.registry.head()).registry_id,
            sign_off=policy_digest(self.policy),
            evidence={},
        )
        asked = self.statement("request", "", "ana")
        self.id = derive_request_id(asked)
        body = msgspec.to_builtins(ApprovalRequest(title="wine@4", request=asked))
        await self.registry.write(Put(kind=APPROVALS, name=self.id, body=body, expected=0), author="ana")
        for who in ("bea", "dan"):
            await self.decide("approve", who)

    def statement(self, decision: Decision, request: str, who: str) -> dict[str, Any]:
        subject: Subject = self.subject
        signer = ssh_signer(Path(self.people.key(who)))
        return make_statement(decision, request, f"{who}@example.com", subject, signer, reason="so")

    async def decide(self, decision: Decision, who: str) -> None:
        found = await find_request(self.registry, self.id)
        assert found is not None
        await self.registry.write(
            with_decision_and_keys(found[0], self.statement(decision, self.id, who), {}), author=who
        )

    async def write(self, between: Callable[[], Awaitable[object]]) -> None:
        async with console.open_guarded_registry(self.settings) as guarded:
            inner: Registry = guarded._registry  # type: ignore[attr-defined]
            arrived = inner.write

            async def write(*changes: Put | Delete, **options: Any) -> int:
                await between()
                return await arrived(*changes, **options)

            inner.write = write  # type: ignore[method-assign]
            await guarded.write(PUT_WINE, author="ana")


@pytest.fixture(params=["memory", "sqlite", "firestore"])
async def scene(
    request: pytest.FixtureRequest, tmp_path: Path, people: People, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(console, "choice", console.GlobalOptions())  # not that of a test before
    urls = {"memory": f"memory://{tmp_path.name}", "sqlite": f"sqlite://{tmp_path}/registry.db"}
    url = urls.get(request.param) or request.getfixturevalue("firestore")
    scene = Scene(load_settings(flags={"registry": url}), people)
    await scene.begin()
    yield scene
    await scene.registry.close()


async def nothing() -> None:
    pass


async def test_what_is_approved_is_written(scene: Scene):
    await scene.write(nothing)
    assert await scene.registry.read(MODELS, "wine") is not None


async def test_a_rejection_that_comes_between_check_and_write_counts(scene: Scene):
    with pytest.raises(Conflict, match=f"approvals/{scene.id}"):
        await scene.write(lambda: scene.decide("reject", "cy"))
    assert await scene.registry.read(MODELS, "wine") is None


async def test_another_policy_that_comes_between_check_and_write_counts(scene: Scene):
    stricter = {**scene.policy, "approvals": {"approver": 3}}
    change = Put(kind=SIGN_OFF, name=SIGN_OFF_POLICY, body=stricter, expected=1)
    with pytest.raises(Conflict, match="sign-off/policy"):
        await scene.write(lambda: scene.registry.write(change, author="ana"))
    assert await scene.registry.read(MODELS, "wine") is None


async def test_the_first_policy_that_comes_between_check_and_write_counts(scene: Scene):
    await scene.registry.write(Delete(kind=SIGN_OFF, name=SIGN_OFF_POLICY, expected=1), author="ana")
    change = Put(kind=SIGN_OFF, name=SIGN_OFF_POLICY, body=scene.policy, expected=0)
    with pytest.raises(Conflict, match="sign-off/policy"):
        await scene.write(lambda: scene.registry.write(change, author="ana"))
    assert await scene.registry.read(MODELS, "wine") is None
