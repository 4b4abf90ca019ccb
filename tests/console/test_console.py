"""What an operator sees, in a real Chromium: the pages, the keyboard, small screens, strangers' names."""

import asyncio
import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from gateway.core.model import Backend, Model, Policy, Tensor
from gateway.core.model_updates import to_document
from gateway.registry.base import MODELS, Put
from tests.console.conftest import Watched
from tests.console.stage import INPUTS, Stage, scores
from tests.flow.scripted import Message, Peer
from tests.patience import patience

pytestmark = pytest.mark.timeout(300)

PAGES = {
    "": ".issue",
    "?window=1h": ".issue",
    "models": "#row-wine",
    "model/wine": ".chart svg",
    "model/away": ".issue",
    "requests": "tbody tr",
    "requests?kind=slowest&model=wine&status=2xx": "tbody tr",
    "changes": ".change",
    "approvals": ".card",
    "callers": "tbody tr",
}
AWAY = Model(
    name="away",
    owner="ben@example.com",
    backends=(Backend(version="1", url="http://127.0.0.1:1"), Backend(version="2", url="http://127.0.0.1:1")),
    traffic={"1": 100, "2": 0},
)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`${alert(3)}"
VIEWS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 320)]


async def test_without_a_key_it_shows_nothing_but_a_form(stage: Stage, watched: Watched):
    await watched.page.goto(f"{watched.base}/-/console/")
    await watched.page.wait_for_selector("#login")
    assert await watched.violations() == []
    assert "wine" not in await watched.page.inner_text("body")


async def test_a_key_that_may_only_score_does_not_open_it(stage: Stage, watched: Watched):
    await watched.sign_in(stage.key)
    error = await watched.page.wait_for_selector(".error[role=alert]")
    assert "may not operate" in await error.inner_text()
    assert await watched.violations() == []
    await watched.page.fill("#key", stage.operator)
    await watched.page.press("#key", "Enter")
    await watched.page.wait_for_selector(".verdict")
    watched.faults = [fault for fault in watched.faults if "status of 403" not in fault]


async def in_view(watched: Watched, scheme: str, width: int) -> None:
    await watched.page.emulate_media(color_scheme=scheme)
    await watched.page.set_viewport_size({"width": width, "height": 800})


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), VIEWS)
async def test_every_page_is_accessible_also_after_three_refreshes(
    stage: Stage, watched: Watched, scheme: str, width: int
):
    await stage.traffic(120)
    await stage.put(AWAY, "a model whose backend is away")
    assert (await stage.call("POST", "/away")).status == 502
    await in_view(watched, scheme, width)
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector(".issue")
    for where, wait_for in PAGES.items():
        await watched.go(where, wait_for)
        await watched.refreshes()
        assert await watched.violations() == [], where
    await watched.go("requests?kind=all&model=wine", "tbody tr")
    await watched.page.click("tbody tr a")
    await watched.page.wait_for_selector(".waterfall .span")
    assert await watched.violations() == []


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), VIEWS)
async def test_every_page_without_data(empty_stage: Stage, empty_watched: Watched, scheme: str, width: int):
    watched = empty_watched
    await in_view(watched, scheme, width)
    await watched.sign_in(empty_stage.operator)
    await watched.page.wait_for_selector(".verdict h1:has-text('Everything is all right')")
    assert "Nobody has called" in await watched.page.inner_text(".verdict")
    for where in ("", "models", "requests", "changes", "callers"):
        await watched.go(where, "body[data-state=shown] main h1")
        assert await watched.violations() == [], where
    await watched.go("models", "text=chips register NAME URL")
    await watched.go("model/nobody", "[role=alert]")
    await watched.go("request/nobody", "[role=alert]")
    watched.faults = [fault for fault in watched.faults if "status of 404" not in fault]


async def put_slow_version(stage: Stage) -> None:
    """A model whose version b takes a second longer than its objective allows, however busy this machine is."""
    quick = await stage.backend(scores("a", typical_ms=1))
    slow = await stage.backend(scores("b", typical_ms=4000))
    backends = (Backend(version="a", url=quick.url), Backend(version="b", url=slow.url))
    model = Model(name="forecast", policy=Policy(latency_s=1.0), backends=backends[:1], traffic={"a": 100})
    await stage.put(model, "first version")
    half = msgspec.structs.replace(model, backends=backends, traffic={"a": 50, "b": 50})
    await stage.put(half, "half to version b")


async def test_a_dead_backend_and_a_slow_version_are_found_on_the_first_page(stage: Stage, watched: Watched):
    await stage.put(AWAY, "a model whose backend is away")
    for _ in range(3):
        assert (await stage.call("POST", "/away")).status == 502
    await put_slow_version(stage)
    slow = [asyncio.create_task(stage.score("forecast", "b")) for _ in range(24)]
    for _ in range(24):  # one by one: where this machine stands still, only one of them is late
        await stage.score("forecast", "a")
    await asyncio.gather(*slow)
    page = watched.page
    await watched.sign_in(stage.operator)
    await page.click("text='1 h'")
    await page.wait_for_selector(".issue:has-text('forecast@b is too slow')")
    dead = await page.wait_for_selector(".issue:has-text('away@1 cannot be reached')")
    text = await dead.inner_text()
    for expected in (
        "for the backend to fix",
        "ben@example.com",
        "since 2",
        "100 % of 3 requests",
        "no connection",
    ):
        assert expected in text
    titles = await page.locator(".issue h2").all_inner_texts()
    assert titles.index("away@1 cannot be reached") < titles.index("forecast@b is too slow")
    late = await page.inner_text(".issue:has-text('forecast@b is too slow')")
    assert "“half to version b”" in late, "the change shortly before it began"
    assert "chips rollback forecast --to 1" in late
    assert "chips traffic forecast a=100" in late
    await page.click(".issue:has-text('forecast@b') >> text=The slowest of these requests")
    await page.click("tbody tr a")
    await page.wait_for_selector(".waterfall")
    assert re.search(r"at the backend, mostly in its phase .predict.", await page.inner_text(".answer"))


async def test_one_request_from_the_list_to_its_waterfall(stage: Stage, watched: Watched):
    answer = await stage.call("POST", "/wine")
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector(".verdict")
    request_id = answer.get("X-Request-Id")
    await watched.go("requests", "#kind")
    await watched.page.select_option("#kind", "all")
    link = f"a[href='#/request/{request_id}']"
    await watched.page.wait_for_selector(link)
    await watched.page.click(link)
    await watched.page.wait_for_selector(".waterfall")
    text = await watched.page.inner_text("main")
    for expected in (
        "attempt 1",
        "backend predict",
        f"chips why {request_id}",
        str(answer.get("X-Trace-Id")),
    ):
        assert expected in text
    marks = await watched.page.locator(".axis .track span").all_inner_texts()
    values = [float(mark.split()[0]) for mark in marks]
    assert len(values) >= 2
    assert values == [round(values[1] * i, 9) for i in range(len(values))], "round and even"


async def test_it_is_live(stage: Stage, watched: Watched):
    await watched.sign_in(stage.operator)
    await watched.go("models", "#row-fraud-cards")
    gone = Backend(version="1", url="http://127.0.0.1:1")
    await stage.put(Model(name="brand-new", backends=(gone,), traffic={"1": 100}), "new")
    await watched.page.wait_for_selector("#row-brand-new")
    await watched.go("requests", "#kind")
    answer = await stage.call("POST", "/brand-new")
    assert answer.status == 502
    await watched.page.wait_for_selector(f"a[href='#/request/{answer.get('X-Request-Id')}']")


async def refuse(_: Message, peer: Peer) -> None:
    await peer.answer(
        422,
        b'{"status": 422, "detail": "x must be a number"}',
        [("Content-Type", "application/problem+json")],
    )


async def test_a_list_of_requests_can_be_sent_to_somebody(stage: Stage, watched: Watched):
    for _ in range(3):
        await stage.call("POST", "/demand-north")
    picky = await stage.backend(refuse)
    await stage.put(
        Model(name="picky", backends=(Backend(version="1", url=picky.url),), traffic={"1": 100}), "new"
    )
    theirs = await stage.call("POST", "/picky")
    assert theirs.status == 422
    page = watched.page
    await watched.sign_in(stage.operator)
    await watched.go("requests", "#kind")
    await page.fill("#of-model", "demand-north")
    await page.fill("input[name=caller]", "test")
    await page.select_option("#status", "2xx")
    await page.wait_for_selector("p [role=status]:has-text('3 requests')")
    assert await page.locator("tbody tr").count() == 3
    address = page.url
    await page.goto("about:blank")
    await page.goto(address)
    await page.wait_for_selector("p [role=status]:has-text('3 requests')")
    assert await page.input_value("input[name=caller]") == "test"
    await page.click("text=Clear the filters")
    await page.select_option("#side", "caller")
    await page.fill("#text", "/PICKY")
    # The list without any filter, which may come in between, has it as well, and others if the machine is slow.
    await page.wait_for_selector("p [role=status]:text-is('1 request')")
    assert await page.locator("tbody tr").count() == 1
    await page.click(f"a[href='#/request/{theirs.get('X-Request-Id')}']")
    await page.wait_for_selector("text=The backend refused the request itself")


async def test_more_requests_than_a_page(stage: Stage, watched: Watched):
    await stage.put(AWAY, "a model whose backend is away")
    for _ in range(60):
        await stage.call("POST", "/away")
    page = watched.page
    await watched.sign_in(stage.operator)
    await watched.go("requests?status=502", "p [role=status]:has-text('60 requests')")
    assert await page.locator("tbody tr").count() == 50
    await page.click("text=Older →")
    await page.wait_for_selector("tbody tr:nth-child(10):last-child")
    await page.click("text=← To the beginning")
    await page.wait_for_selector("tbody tr:nth-child(50):last-child")


async def test_a_chart_has_round_axes_and_says_what_is_under_the_pointer(stage: Stage, watched: Watched):
    await stage.traffic(60)
    page = watched.page
    await watched.sign_in(stage.operator)
    await watched.go("model/wine", ".chart svg rect")
    axis = await page.locator("section:has(h2:has-text('over the last hour')) svg text").all_text_contents()
    labels = [text.split() for text in axis if re.fullmatch(r"[0-9.]+ (ms|s|min)", text)]
    values = [float(value) * {"ms": 1, "s": 1_000, "min": 60_000}[unit] for value, unit in labels]
    steps = {float(f"{b - a:.6g}") for a, b in pairwise(values)}
    assert len(steps) == 1
    assert f"{steps.pop():e}".partition("e")[0].rstrip("0").rstrip(".") in {"1", "2", "2.5", "5"}
    plot = page.locator("section:has(h2:has-text('How long requests took')) .plot")
    await plot.hover()
    tip = page.locator("section:has(h2:has-text('How long requests took')) .tip")
    assert re.search(r"version 1: \d+ \(", await tip.inner_text())
    await plot.focus()
    await page.keyboard.press("Home")
    first = await tip.inner_text()
    await page.keyboard.press("ArrowRight")
    assert await tip.inner_text() != first
    await watched.refreshes(1)
    assert await tip.is_visible(), "a refresh leaves it where it is"


async def test_the_keyboard_is_enough(stage: Stage, watched: Watched):
    page = watched.page
    await stage.put(AWAY, "a model whose backend is away")
    await stage.call("POST", "/away")

    async def tab_to(text: str) -> None:
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.textContent.trim()") == text:
                return
        raise AssertionError(f"no way to {text} by the keyboard")

    await page.goto(f"{watched.base}/-/console/")
    await page.wait_for_selector("#key")
    await tab_to("Skip to the content")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.focus("#key")
    await page.keyboard.type(stage.operator)
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".issue")
    await tab_to("1 h")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".choice [aria-current]:text-is('1 h')")
    await page.wait_for_selector(".verdict:has-text('in the last hour')")
    await tab_to("These requests")
    await watched.refreshes()
    assert await page.evaluate("document.activeElement.textContent") == "These requests", (
        "a refresh keeps the focus"
    )
    await page.keyboard.press("Enter")
    await page.wait_for_selector("tbody tr a")
    assert await page.evaluate("document.activeElement.id") == "main"
    await tab_to(await page.inner_text("tbody tr a"))
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".waterfall")
    await tab_to("Copy")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("button.copy:text-is('Copied'), button.copy:has-text('Marked')")


async def test_what_strangers_write_is_shown_and_never_obeyed(stage: Stage, watched: Watched):
    tensor = Tensor(name=HOSTILE, datatype="BYTES", shape=(-1,))
    backend = Backend(version="1", url="http://127.0.0.1:1", inputs=(tensor,))
    model = Model(name="hostile", description=HOSTILE, owner=HOSTILE, backends=(backend,), traffic={"1": 100})
    await stage.put(model, HOSTILE)
    answer = await stage.call("POST", "/hostile", key=await stage.make_key("*"))
    await stage.call("GET", "/-/nothing/'onload=alert(1)")
    page = watched.page
    await watched.sign_in(stage.operator)
    await watched.go("models", "#row-hostile")
    assert HOSTILE[:40] in await page.inner_text("#row-hostile")
    await watched.go("model/hostile", f"text={HOSTILE[:30]}")
    await watched.go(f"request/{answer.get('X-Request-Id')}", ".waterfall")
    await watched.go("changes", f"text={HOSTILE[:30]}")
    await page.goto(f"{watched.base}/-/docs/#hostile")
    await page.wait_for_selector("#try-hostile")
    for language in ("curl", "Python", "R", "JavaScript", "Julia"):
        await page.click(f".choice >> text='{language}'")
    assert HOSTILE in await page.inner_text("#try-hostile")
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0


HIDDEN = "fine\x9b\x7f\u202e\u2066\u200b\u2028\ufefftext"
WRITTEN_OUT = "fine\\x9b\\x7f\\u202e\\u2066\\u200b\\u2028\\ufefftext"


async def test_what_would_hide_or_reorder_is_written_out(stage: Stage, watched: Watched):
    backend = Backend(version="1", url="http://127.0.0.1:1")
    model = Model(name="odd", description=HIDDEN, owner=HIDDEN, backends=(backend,), traffic={"1": 100})
    await stage.put(model, HIDDEN)
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector(".verdict")
    seen = ""
    for where, wait_for in (("models", "#row-odd"), ("model/odd", "#slowest"), ("changes", ".change")):
        await watched.go(where, wait_for)
        seen += await watched.page.inner_text("body")
    assert seen.count(WRITTEN_OUT) >= 3
    assert not set(seen) & set(HIDDEN.replace("fine", "").replace("text", ""))


async def test_a_script_from_elsewhere_does_not_run(stage: Stage, watched: Watched):
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector(".verdict")
    refused = await watched.page.evaluate(
        """() => new Promise((resolve) => {
            addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
            const script = document.createElement('script');
            try { script.src = 'https://attacker.example/x.js'; document.head.append(script); }
            catch { resolve('trusted types'); }
        })"""
    )
    assert refused
    watched.faults.clear()


async def shown(page: Any, where: str) -> int:
    return int(await page.locator(where).count())


@pytest.mark.slow
async def test_ten_thousand_models(stage: Stage, watched: Watched):
    changes = []
    for number in range(10_000):
        model = Model(
            name=f"m{number:05d}",
            description="One of very many",
            backends=(Backend(version="1", url="http://127.0.0.1:1", inputs=INPUTS),),
            traffic={"1": 100},
        )
        changes.append(Put(kind=MODELS, name=model.name, body=to_document(model), expected=0))
    generation = await stage.registry.write(*changes, author="ana")
    assert await stage.gateway.mirror.wait_for_generation(generation, timeout_s=patience(120))
    page = watched.page
    await watched.sign_in(stage.operator)
    await page.wait_for_selector("text=10\u202f004 models listed")
    async with page.expect_response(re.compile("/-/overview")) as overview:
        pass
    assert len(await (await overview.value).body()) < 20_000
    await watched.go("models?sort=name", "text=10\u202f004 of 10\u202f004 models")
    assert await shown(page, "tbody tr") == 50
    await page.click("text=Next 50 →")
    await page.wait_for_selector("#row-m00060")
    assert await shown(page, "tbody tr") == 50
    await page.fill("#find", "m09999")
    await page.wait_for_selector("#row-m09999")
    await page.wait_for_selector("text=1 of 10\u202f004 models")
    await page.goto(f"{watched.base}/-/docs/")
    await page.wait_for_selector("text=10\u202f004 models with your key")
    assert await shown(page, ".list li") == 50
    await page.fill("#find", "m09999")
    await page.click("#model-m09999 a")
    await page.wait_for_selector("#examples")
    assert await watched.violations() == []
