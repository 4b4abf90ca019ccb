"""What an operator sees, in a real Chromium: the pages, the keyboard, small screens, strangers' names."""

from typing import Any

import pytest

from gateway.core.model import Backend, Model, Tensor
from gateway.core.model_updates import to_document
from gateway.registry.base import MODELS, Put
from tests.console.conftest import Watched
from tests.console.stage import INPUTS, Stage
from tests.patience import patience

pytestmark = pytest.mark.timeout(180)

PAGES = {
    "": "#row-wine",
    "model/wine": "#try-wine",
    "requests": "tbody tr",
    "callers": "tbody tr",
    "history": "tbody tr",
}
AWAY = Model(name="away", backends=(Backend(version="1", url="http://127.0.0.1:1"),), traffic={"1": 100})
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`${alert(3)}"


async def violations(page: Any) -> list[str]:
    from axe_playwright_python.async_playwright import Axe

    found = (await Axe().run(page)).response["violations"]
    return [f"{v['id']}: {[node['html'][:120] for node in v['nodes']][:3]}" for v in found]


async def test_without_a_key_it_shows_nothing_but_a_form(stage: Stage, watched: Watched):
    await watched.page.goto(f"{watched.base}/-/console/")
    await watched.page.wait_for_selector("#login")
    assert await violations(watched.page) == []
    assert "wine" not in await watched.page.inner_text("body")


async def test_a_key_that_may_only_score_does_not_open_it(stage: Stage, watched: Watched):
    await watched.sign_in(stage.key)
    await watched.page.wait_for_selector("text=may not operate")
    watched.faults = [fault for fault in watched.faults if "status of 403" not in fault]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
async def test_every_page_is_accessible(stage: Stage, watched: Watched, scheme: str, width: int):
    await stage.traffic(60)
    await stage.put(AWAY, "a model whose backend is away")
    assert (await stage.call("POST", "/away")).status == 502
    page = watched.page
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": width, "height": 800})
    await watched.sign_in(stage.operator)
    await page.wait_for_selector("#row-wine")
    for where, wait_for in PAGES.items():
        await watched.go(where, wait_for)
        assert await violations(page) == [], where
        overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{where} is wider than the screen by {overflow} px"
    await watched.go("requests", "tbody tr")
    await page.select_option("#kind", "all")
    await page.click("tbody tr a")
    await page.wait_for_selector(".waterfall tbody tr")
    assert await violations(page) == []


async def test_one_request_from_the_list_to_its_waterfall(stage: Stage, watched: Watched):
    answer = await stage.call("POST", "/wine")
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector("#row-wine")
    request_id = answer.get("X-Request-Id")
    await watched.page.goto(f"{watched.base}/-/console/#/requests")
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


async def test_it_is_live(stage: Stage, watched: Watched):
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector("#row-fraud-cards")
    await stage.put(
        Model(
            name="brand-new", backends=(Backend(version="1", url="http://127.0.0.1:1"),), traffic={"1": 100}
        ),
        "new",
    )
    await watched.page.wait_for_selector("#row-brand-new")
    await watched.go("requests", "#kind")
    answer = await stage.call("POST", "/brand-new")
    assert answer.status == 502
    await watched.page.wait_for_selector(f"a[href='#/request/{answer.get('X-Request-Id')}']")


async def test_the_form_that_tries_a_model(stage: Stage, watched: Watched):
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector("#row-wine")
    await watched.go("model/wine", "#try-wine")
    await watched.page.fill("#try-wine label:has-text('alcohol') input", "13.5")
    assert '"alcohol": 13.5' in await watched.page.input_value("#try-body")
    await watched.page.click("#try-wine button[type=submit]")
    await watched.page.wait_for_selector("#try-wine pre")
    assert '"predictions"' in await watched.page.inner_text("#try-wine pre")
    await watched.page.click("#try-wine a")
    await watched.page.wait_for_selector(".waterfall")
    assert "an operator asked for it" in await watched.page.inner_text("main")


async def test_the_keyboard_is_enough(stage: Stage, watched: Watched):
    page = watched.page
    await page.goto(f"{watched.base}/-/console/")
    await page.wait_for_selector("#key")
    await page.focus("#key")
    await page.keyboard.type(stage.operator)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#row-wine")
    await page.focus("#find")
    await page.keyboard.type("fraud")
    await page.wait_for_selector("#row-wine", state="detached")
    for _ in range(12):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.textContent") == "fraud-cards":
            break
    await page.keyboard.press("Enter")
    await page.wait_for_selector("h1:has-text('fraud-cards')")


async def test_what_strangers_write_is_shown_and_never_obeyed(stage: Stage, watched: Watched):
    await stage.put(
        Model(
            name="hostile",
            description=HOSTILE,
            owner=HOSTILE,
            backends=(
                Backend(
                    version="1",
                    url="http://127.0.0.1:1",
                    inputs=(Tensor(name=HOSTILE, datatype="BYTES", shape=(-1,)),),
                ),
            ),
            traffic={"1": 100},
        ),
        HOSTILE,
    )
    answer = await stage.call("POST", "/hostile")
    await stage.call("GET", "/-/nothing/'onload=alert(1)")
    page = watched.page
    await watched.sign_in(stage.operator)
    await page.wait_for_selector("#row-hostile")
    assert HOSTILE[:40] in await page.inner_text("#row-hostile")
    await watched.go("model/hostile", "#try-hostile")
    assert HOSTILE in await page.inner_text("#try-hostile")
    await watched.go(f"request/{answer.get('X-Request-Id')}", ".waterfall")
    await watched.go("history", f"text={HOSTILE[:30]}")
    await page.goto(f"{watched.base}/-/docs/")
    await page.wait_for_selector("h1")
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0


HIDDEN = "fine\x9b\x7f\u202e\u2066\u200b\u2028\ufefftext"
WRITTEN_OUT = "fine\\x9b\\x7f\\u202e\\u2066\\u200b\\u2028\\ufefftext"


async def test_what_would_hide_or_reorder_is_written_out(stage: Stage, watched: Watched):
    backend = Backend(version="1", url="http://127.0.0.1:1")
    model = Model(name="odd", description=HIDDEN, owner=HIDDEN, backends=(backend,), traffic={"1": 100})
    await stage.put(model, HIDDEN)
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector("#row-odd")
    seen = await watched.page.inner_text("body")
    for where, wait_for in (("model/odd", "#try-odd"), ("history", "tbody tr")):
        await watched.go(where, wait_for)
        seen += await watched.page.inner_text("body")
    assert seen.count(WRITTEN_OUT) >= 3
    assert not set(seen) & set(HIDDEN.replace("fine", "").replace("text", ""))


async def test_a_script_from_elsewhere_does_not_run(stage: Stage, watched: Watched):
    await watched.sign_in(stage.operator)
    await watched.page.wait_for_selector("#row-wine")
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


@pytest.mark.slow
async def test_a_thousand_models(stage: Stage, watched: Watched):
    generation = 0
    for number in range(1000):
        model = Model(
            name=f"m{number:04d}",
            description="One of a thousand",
            backends=(Backend(version="1", url="http://127.0.0.1:1", inputs=INPUTS),),
            traffic={"1": 100},
        )
        generation = await stage.registry.write(
            Put(kind=MODELS, name=model.name, body=to_document(model), expected=0), author="ana"
        )
    assert await stage.gateway.mirror.wait_for(generation, timeout_s=patience(30))
    page = watched.page
    await watched.sign_in(stage.operator)
    await page.wait_for_selector("text=1004 of 1004")
    assert await page.locator("tbody tr").count() == 50
    await page.fill("#find", "m0999")
    await page.wait_for_selector("#row-m0999")
    assert await page.locator("tbody tr").count() == 1


async def test_the_page_of_documents(stage: Stage, watched: Watched):
    page = watched.page
    await page.goto(f"{watched.base}/-/docs/")
    await page.wait_for_selector("text=0 without a key")
    await page.fill("#key", stage.key)
    await page.click("text=Use it")
    await page.wait_for_selector("#model-wine")
    assert await violations(page) == []
    await page.click("#model-wine h2 a")
    await page.wait_for_selector("#try-wine")
