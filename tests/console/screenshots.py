"""Take the tutorial's pictures again: `python -m tests.console.screenshots`. Three minutes and a Chromium."""

import asyncio
import sys
from pathlib import Path

from playwright.async_api import async_playwright

from examples.slow_version import running
from tests.console.conftest import CHROMIUM

FOLDER = Path(__file__).parents[2] / "docs/tutorial/images"
_TRAFFIC_S = 130  # two minutes of history


async def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with running() as it, async_playwright() as playwright:
        await asyncio.sleep(_TRAFFIC_S)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(viewport={"width": 1180, "height": 640}, color_scheme="light")
        page = await context.new_page()
        await page.goto(f"{it.url}/-/console/")
        await page.fill("#key", it.operator)
        await page.click("#login button")
        await page.wait_for_selector(".issue")
        await page.screenshot(path=FOLDER / "now.png")
        await page.click(".issue h2 a")
        await page.wait_for_selector("text=slower than the rest")
        await page.wait_for_selector(".chart path")
        await page.set_viewport_size({"width": 1180, "height": 1240})
        await page.screenshot(path=FOLDER / "versions.png")
        await page.click(".issue >> text=The slowest of these requests")
        await page.click("tbody tr a >> nth=2")
        await page.wait_for_selector(".waterfall")
        await page.set_viewport_size({"width": 1180, "height": 760})
        await page.screenshot(path=FOLDER / "request.png")
        await browser.close()
    sys.stdout.write(f"wrote {FOLDER}/*.png\n")


if __name__ == "__main__":
    asyncio.run(main())
