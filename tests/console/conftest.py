"""A real browser in front of a whole gateway."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.console.stage import Stage, staged
from tests.patience import patience

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
async def empty_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway that lists no model and that nobody has called."""
    async with Stage(tmp_path) as stage:
        stage.operator = await stage.make_operator()
        yield stage


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    require(
        "chromium", available=CHROMIUM is not None, why="no Chromium is on the PATH: apt install chromium"
    )
    require("playwright", available=find_spec("playwright") is not None, why="pip install -e '.[dev]'")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        await browser.close()


class Watched:
    """A page, and everything it did that it should not have done."""

    def __init__(self, page: Any, base: str) -> None:
        self.page = page
        self.base = base
        self.faults: list[str] = []
        self.away = False  # whether the gateway is expected to be away
        page.set_default_timeout(patience(30_000))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._on_console)
        page.on("request", self._on_request)
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))

    def _on_console(self, message: Any) -> None:
        # A refusal is how the page learns that it needs a key; a request a moment old is not in the store yet.
        awaited = (
            "status of 401" in message.text
            or ("status of 404" in message.text and "/-/requests/" in message.location.get("url", ""))
            or (self.away and "Failed to load resource: net::ERR_" in message.text)
        )
        if message.type in {"error", "warning"} and not awaited:
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith(self.base):
            self.faults.append(f"another host: {request.url}")

    async def sign_in(self, key: str) -> None:
        await self.page.goto(f"{self.base}/-/console/")
        await self.page.fill("#key", key)
        await self.page.click("#login button")

    async def go(self, where: str, wait_for: str) -> None:
        await self.page.goto(f"{self.base}/-/console/#/{where}")
        await self.page.wait_for_selector(wait_for)

    async def refreshes(self, times: int = 3) -> None:
        """Make the page read its figures again so often, as it does when somebody comes back to it, and draw them."""
        for _ in range(times):
            async with self.page.expect_response(lambda answer: "/-/" in answer.url and answer.ok) as answer:
                await self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            await (await answer.value).finished()
        await self.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    async def violations(self) -> list[str]:
        """What axe finds wrong, and how far the page is wider than the screen."""
        from axe_playwright_python.async_playwright import Axe

        found = (await Axe().run(self.page)).response["violations"]
        wide = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return [f"{v['id']}: {[node['html'][:160] for node in v['nodes']][:3]}" for v in found] + (
            [f"wider than the screen by {wide} px"] if wide > 0 else []
        )


@pytest.fixture
async def watched(browser: Any, stage: Stage) -> AsyncIterator[Watched]:
    async with watching(browser, stage) as watched:
        yield watched


@pytest.fixture
async def empty_watched(browser: Any, empty_stage: Stage) -> AsyncIterator[Watched]:
    async with watching(browser, empty_stage) as watched:
        yield watched


@asynccontextmanager
async def watching(browser: Any, stage: Stage) -> AsyncIterator[Watched]:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(await context.new_page(), f"http://127.0.0.1:{stage.gateway.port}")
    yield watched
    assert watched.faults == []
    await context.close()
