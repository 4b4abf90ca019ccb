"""Approvals in a real Chromium: what a decision binds, next to the evidence; and three ways to sign it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.registry.base import APPROVALS
from tests.console.conftest import Watched
from tests.console.sign_off_scene import WROTE, SignOffScene
from tests.console.stage import Stage
from tests.flow.issuer import KeyServer, signer
from tests.unit.signoff.people import People

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


async def opened(watched: Watched, stage: Stage, scene: SignOffScene) -> Any:
    """The page of the request, as somebody finds it."""
    await watched.sign_in(stage.operator)
    await watched.go("approvals", ".request")
    await watched.page.click(".request h2 a")
    await watched.page.wait_for_selector("#binds")
    assert scene.id in watched.page.url
    return watched.page


async def prepared(page: Any, who: str, decision: str = "approve", reason: str = "") -> None:
    await page.select_option("#by", f"{who}@example.com")
    await page.select_option("#decision", decision)
    await page.fill("#reason", reason)
    await page.click("#decide form button")
    await page.wait_for_selector("#decide .ways")


async def test_a_request_shows_what_it_changes_beside_its_evidence(
    stage: Stage, watched: Watched, people: People
):
    scene = SignOffScene(stage.registry, people)
    await scene.begin()
    await scene.decide("reject", "bea", "the canary was too short")
    page = await opened(watched, stage, scene)
    assert "rejected" in await page.inner_text("h1")
    changes = await page.inner_text("#differences")
    assert "version 4: image" in changes
    assert "sha256:" + "b" * 64 in changes
    assert "policy latency s\n0.05 s → 0.2 s" in changes
    assert WROTE in await page.inner_text("#evidence")
    binds = await page.inner_text("#binds")
    for value in (
        scene.subject.image,
        scene.subject.artifact,
        scene.subject.contract,
        scene.subject.digest(),
    ):
        assert value in binds
    assert "the canary was too short" in await page.inner_text("#decisions")
    assert f"chips approve {scene.id} --ssh-key" in await page.inner_text("#decide")
    await watched.refreshes()
    assert await watched.violations() == []


async def test_somebody_signs_with_ssh_keygen_and_hands_it_in(
    stage: Stage, watched: Watched, people: People, tmp_path: Path
):
    """The command is run as the page prints it, but for the name of the key's file."""
    scene = SignOffScene(stage.registry, people)
    await scene.begin()
    page = await opened(watched, stage, scene)
    for who in ("bea", "dan"):
        await prepared(page, who, reason="I have looked")
        command = (await page.inner_text("#decide .ways code")).replace("~/.ssh/id_ed25519", people.key(who))
        signed = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout
        await page.fill("#signature", signed)
        await page.click("#hand-in")
        await page.wait_for_selector(f"#decide [role=status]:has-text('{who}@example.com has approved it')")
    await page.wait_for_selector("h1:has-text('approved')")
    assert await scene.verdict() == {"approved": True, "by": ["bea@example.com", "dan@example.com"]}
    assert await watched.violations() == []


async def test_a_signature_of_another_person_decides_nothing(stage: Stage, watched: Watched, people: People):
    scene = SignOffScene(stage.registry, people)
    await scene.begin()
    page = await opened(watched, stage, scene)
    await prepared(page, "bea")
    command = (await page.inner_text("#decide .ways code")).replace("~/.ssh/id_ed25519", people.key("eve"))
    signed = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout
    await page.fill("#signature", signed)
    await page.click("#hand-in")
    await page.wait_for_selector("#decide [role=alert]:has-text('bears no good signature')")
    document = await stage.registry.read(APPROVALS, scene.id)
    assert document is not None
    assert document.body["decisions"] == []
    watched.faults = [fault for fault in watched.faults if "status of 403" not in fault]


async def test_somebody_signs_by_signing_in_at_their_issuer(stage: Stage, watched: Watched, people: People):
    async with KeyServer(signer()) as issuer:
        issuer.email = "gil@example.com"
        scene = SignOffScene(stage.registry, people, issuer=issuer.issuer)
        await scene.begin()
        page = await opened(watched, stage, scene)
        await prepared(page, "gil")
        await page.click("#sign-in")
        await page.wait_for_selector("#came-back:has-text('gil@example.com has approved it')")
        assert "id_token" not in page.url
        assert await scene.verdict() == {"approved": False, "by": ["gil@example.com"]}

        issuer.email = "eve@example.com"  # somebody else is signed in there
        await prepared(page, "gil", "reject", "no")
        await page.click("#sign-in")
        await page.wait_for_selector("#came-back[role=alert]:has-text('bears no good signature')")
        assert await scene.verdict() == {"approved": False, "by": ["gil@example.com"]}

        # A link from elsewhere, with somebody's token: nothing of this tab waits for it.
        await page.goto(f"{watched.base}/-/console/?x#id_token=abc&state=def")
        await page.wait_for_selector("#came-back[role=alert]:has-text('did not begin in this tab')")
    watched.faults = [
        fault for fault in watched.faults if issuer.issuer not in fault and "status of 403" not in fault
    ]


async def test_an_emergency_is_on_every_page_until_it_is_reviewed(
    stage: Stage, watched: Watched, people: People
):
    scene = SignOffScene(stage.registry, people)
    await scene.begin()
    await scene.decide("emergency", "cy", "version 1 answers nonsense")
    await watched.sign_in(stage.operator)
    for where in ("", "models", "requests", "changes", "approvals", "callers"):
        await watched.page.goto(f"{watched.base}/-/console/#/{where}")
        banner = await watched.page.wait_for_selector(".emergency")
        text = await banner.inner_text()
        assert "wine@4 serves on the word of cy@example.com alone" in text
        assert "A review is due by" in text
    assert await watched.violations() == []
    await watched.page.click(".emergency a")
    await watched.page.wait_for_selector("#binds")
    await prepared(watched.page, "bea", "review", "seen")
    command = (await watched.page.inner_text("#decide .ways code")).replace(
        "~/.ssh/id_ed25519", people.key("bea")
    )
    signed = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout
    await watched.page.fill("#signature", signed)
    await watched.page.click("#hand-in")
    await watched.page.wait_for_selector("#decide [role=status]:has-text('has reviewed it')")
    assert await scene.emergencies() == 0
    await watched.page.reload()
    await watched.page.wait_for_selector("#binds")
    assert await watched.page.locator(".emergency").count() == 0
