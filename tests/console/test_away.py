"""The gateway is away while somebody looks: what the page shows is marked as old, and it comes back by itself."""

import pytest

from tests.console.conftest import Watched
from tests.console.stage import Stage
from tests.console.test_console import VIEWS, in_view

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("scheme", "width"), [VIEWS[0], pytest.param(*VIEWS[3], marks=pytest.mark.slow)])
async def test_a_page_says_that_its_figures_are_old(stage: Stage, watched: Watched, scheme: str, width: int):
    await stage.call("POST", "/wine")
    page = watched.page
    await in_view(watched, scheme, width)
    await watched.sign_in(stage.operator)
    await watched.go("models", "#row-wine")
    watched.away = True
    port = stage.gateway.port
    await stage.gateway.stop()
    banner = await page.wait_for_selector(".banner[role=alert]")
    text = await banner.inner_text()
    assert "The gateway does not answer since" in text
    assert "Everything below is from 2" in text
    assert await page.inner_text("#live") == "not connected"
    assert await page.locator("main.stale #row-wine").count() == 1, "what was known stays, and is greyed"
    assert "grayscale" in await page.evaluate("getComputedStyle(document.querySelector('main')).filter")
    assert await watched.violations() == []
    await watched.page.evaluate("location.hash = '#/callers'")
    await page.wait_for_selector("text=There is nothing to show yet.")
    await watched.page.evaluate("location.hash = '#/models'")
    async with stage.restarted(port):
        await page.wait_for_selector("main:not(.stale) #row-wine")
        assert await page.locator(".banner").count() == 0
        await page.goto("about:blank")  # it would find the gateway away again


async def test_the_form_that_tries_a_model_says_so_too(stage: Stage, watched: Watched):
    page = watched.page
    await page.goto(f"{watched.base}/-/docs/")
    await page.wait_for_selector("text=without a key")
    await page.fill("#key", stage.key)
    await page.click("text=Use it")
    await page.click("#model-wine a")
    await page.wait_for_selector("#try-wine")
    watched.away = True
    await stage.gateway.stop()
    await page.click("#try-wine button[type=submit]")
    await page.wait_for_selector("text=The gateway does not answer")
    await page.goto("about:blank")
    async with stage.restarted(0):
        pass
