"""docs/tutorial/find-the-slow-version.md, followed to the letter: with the console alone, and at the terminal alone."""

import asyncio
import json
import os
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.slow_version import Running, running
from tests.console.conftest import Watched

pytestmark = pytest.mark.timeout(180)
PAGE = Path(__file__).parents[2] / "docs/tutorial/find-the-slow-version.md"


async def test_with_the_console_alone(browser: Any):
    async with running() as it:
        context = await browser.new_context(viewport={"width": 1180, "height": 860})
        watched = Watched(await context.new_page(), it.url)
        page = watched.page
        await watched.sign_in(it.operator)
        await page.click(".issue h2 a:has-text('wine@3 is too slow')")
        marked = await page.wait_for_selector("tr:has-text('slower than the rest') th")
        assert (await marked.inner_text()).split()[0] == "3"
        # On a busy machine the other versions may be too slow as well, and stand above it.
        await page.click(".issue:has(h2:has-text('wine@3')) >> text=The slowest of these requests")
        await page.click("tr:has(td[data-label=Version]:text-is('3')) a")
        await page.wait_for_selector(".waterfall .span")
        assert "at the backend" in await page.inner_text(".answer")
        took = {}
        for row in await page.query_selector_all(".waterfall .span"):
            name = (await (await row.query_selector(".name")).inner_text()).strip()
            took[name] = (await (await row.query_selector(".num")).inner_text()).strip()
        assert milliseconds(took["backend predict"]) > 20, took
        await context.close()
        assert watched.faults == []


def milliseconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"ms": 1, "s": 1000}[unit]


async def chips(it: Running, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", *arguments),
        env={**os.environ, "CHIPS_GATEWAY": it.url, "CHIPS_KEY": it.operator},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_at_the_terminal_alone():
    async with running() as it:
        requests: list[Any] = []
        medians: dict[str, float] = {}
        # Of few requests on a busy machine, another version's may be the slowest; of more, they are not.
        while len(medians) < 3 or max(medians, key=lambda version: medians[version]) != "3":
            lines = await chips(it, "tail", "--model", "wine", "--last", "200", "--no-follow", "--json")
            requests = [json.loads(line) for line in lines.splitlines()]
            by_version: dict[str, list[float]] = {}
            for one in requests:
                by_version.setdefault(one["version"], []).append(one["duration_ms"])
            medians = {version: statistics.median(took) for version, took in by_version.items()}
        assert "wine" in await chips(it, "top", "--once")
        slow = next(one for one in reversed(requests) if one["version"] == "3")
        told = await chips(it, "why", slow["request_id"])
        assert "wine@3 at http://127.0.0.1:" in told
        predict = re.search(r"backend predict .* ([0-9.]+ m?s)", told)
        assert predict is not None
        assert milliseconds(predict[1]) > 20


def test_the_pictures_are_there():
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert pictures
    for picture in pictures:
        assert (PAGE.parent / picture).read_bytes().startswith(b"\x89PNG")
