"""Pages of other origins in a real browser, which is who CORS is for: what they may read they read, all else it keeps from them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from gateway.core.model import Policy
from gateway.core.model_cors_policy import CorsRule
from tests.flow.scene import Scene

# Runs in the page: what a program there gets, or that the browser kept it from it.
FETCH = """async ([url, method, key]) => {
    const headers = key ? {'X-Api-Key': key, 'Content-Type': 'application/json'} : {};
    try {
        const answer = await fetch(url, {method, headers, body: method === 'POST' ? '{"instances": []}' : undefined});
        return [answer.status, answer.headers.get('X-Request-Id') !== null, (await answer.text()).length > 0];
    } catch (error) {
        return error.name;
    }
}"""
READ = [200, True, True]
KEPT_FROM_IT = "TypeError"


@asynccontextmanager
async def somebodys_page() -> AsyncIterator[str]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>a page</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_what_a_page_may_read_and_what_the_browser_keeps_from_it(browser: Any):
    async with somebodys_page() as ours, somebodys_page() as theirs:
        rule = CorsRule(allow_headers=("x-api-key", "content-type"))
        async with Scene(**{"edge.cors_origins": ours}) as scene:
            backend = await scene.model(policy=Policy(cors={ours: rule}))
            closed = await scene.model("closed")
            operator = await scene.make_key("*", verbs=("score", "metadata", "operate"))
            gateway = f"http://127.0.0.1:{scene.gateway.port}"

            async def gets(page: Any, path: str, method: str = "GET", key: str = operator) -> Any:
                return await page.evaluate(FETCH, [gateway + path, method, key])

            context = await browser.new_context()
            welcome, stranger = await context.new_page(), await context.new_page()
            await welcome.goto(ours)
            await stranger.goto(theirs)
            assert await gets(welcome, "/wine", "POST") == READ
            for path in ("/", "/-/openapi.json", "/-/docs", "/-/docs/", "/-/jwks.json", "/-/ready", "/wine"):
                assert await gets(welcome, path) == READ, path
                assert await gets(welcome, path, key="") in (READ, [401, True, True]), path
                assert await gets(stranger, path) == KEPT_FROM_IT, path
                assert await gets(stranger, path, key="") == KEPT_FROM_IT, path
            seen = len(backend.seen)
            assert await gets(stranger, "/wine", "POST") == KEPT_FROM_IT
            assert len(backend.seen) == seen == 1, "the preflight was refused, so nothing was sent"
            for path in ("/-/models", "/-/metrics", "/-/requests", "/-/console/", "/closed"):
                assert await gets(welcome, path) == KEPT_FROM_IT, path
            assert await gets(welcome, "/closed", "POST") == KEPT_FROM_IT
            assert closed.seen == []
            await context.close()
