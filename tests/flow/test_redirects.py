"""Redirects of backends: a caller who follows one stays at the gateway and at the model that it asked."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import requests

from gateway.core.model import Backend, Policy
from tests.flow.scene import Scene
from tests.flow.scripted import Message, Peer
from tests.patience import patience


def says(*fields: tuple[str, str], status: int = 307):
    async def script(request: Message, peer: Peer) -> None:
        own = f"http://{request.get('Host')}"
        await peer.answer(status, b"{}", [(name, value.replace("OWN", own)) for name, value in fields])

    return script


# What the backend says, and what the caller is told. The request is POST /wine/a/b?c=1.
LOCATIONS = {
    "OWN/score": "/wine/score",
    "OWN": "/wine/",
    "OWN/": "/wine/",
    "OWN/score?x=1#part": "/wine/score?x=1#part",
    "OWN/score/": "/wine/score/",
    "/score": "/wine/score",
    "/other/score": "/wine/other/score",
    "score": "/wine/a/score",
    "../score": "/wine/score",
    "../../../score": "/wine/score",
    "./": "/wine/a/",
    "?x=1": "/wine/a/b?x=1",
    "#part": "/wine/a/b?c=1#part",
    "": "/wine/a/b?c=1",
    "/wine/score": "/wine/score",  # the backend minds X-Forwarded-Prefix
    "/wine": "/wine",
    "/wines": "/wine/wines",
    "OWN/wine/score": "/wine/score",
    "http://chips/score": "/wine/score",  # it minds X-Forwarded-Host
    "http://CHIPS/wine/score": "/wine/score",
    "http://chips:81/score": "http://chips:81/score",
    "https://login.example.com/?next=/score": "https://login.example.com/?next=/score",
    "//login.example.com/x": "//login.example.com/x",
    "mailto:ana@example.com": "mailto:ana@example.com",
    # as browsers read it
    "//HOST/score": "/wine/score",
    "///HOST/score": "/wine/score",
    "http:HOST/score": "/wine/score",
    "http:/HOST/score": "/wine/score",
    "http:///HOST/score": "/wine/score",
    "HTTP://HOST/score": "/wine/score",
    "https://HOST/score": "/wine/score",
    "http:\\\\HOST\\score": "/wine/score",
    "/\\HOST/score": "/wine/score",
    "\\\\HOST/score": "/wine/score",
    "ht\ttp://HOST/score": "/wine/score",
    "http://u:p@HOST/score": "/wine/score",
    "http://localhost:PORT/score": "/wine/score",
    "http://127.0.0.1/score": "/wine/score",
    # a path of the gateway that leads out of the model again
    "OWN/../score": "/wine/score",
    "OWN/a/../../../other/./score": "/wine/other/score",
    "OWN/a/..": "/wine/",
    "OWN/%2e%2E/other/score": "/wine/other/score",
    "/.%2e/other/score": "/wine/other/score",
    "%2e%2e/%2e%2e/other": "/wine/other",
    "http://chips/wine/../other/score": "/wine/other/score",
    "OWN/..;x/...": "/wine/..;x/...",
    "http://HOST:x/score": None,
    "http://[::1/score": None,
}


@pytest.mark.parametrize("name", ["Location", "content-location"])
async def test_what_a_backend_says_and_what_callers_are_told(scene: Scene, name: str):
    backend = await scene.model()
    caller = await scene.caller()
    for value, told in LOCATIONS.items():
        said = value.replace("HOST", f"127.0.0.1:{backend.port}").replace("PORT", str(backend.port))
        backend.script = says((name, said))
        await caller.send(scene.request(target="/wine/a/b?c=1"))
        answer = await caller.answer()
        assert (answer.status, answer.get(name)) == (307, told), value
    assert backend.seen[0].get("X-Forwarded-Prefix") == "/wine"


async def test_refresh_is_an_address_too(scene: Scene):
    backend = await scene.model()
    for value, told in {
        "5": "5",
        "0; url=OWN/score": "0; url=/wine/score",
        "0;URL='/score'": "0;URL='/wine/score'",
        '3, "OWN/score"': '3, "/wine/score"',
        "0; OWN/score": "0; /wine/score",
        "0; url=https://example.com/": "0; url=https://example.com/",
        "0 url=OWN/score": "0 url=/wine/score",
        "0 OWN/score": "0 /wine/score",
        "2.5 , URL = OWN/../other": "2.5 , URL = /wine/other",
        "5;": "5;",
        "now; url=OWN/score": None,
    }.items():
        backend.script = says(("Refresh", value), status=200)
        assert (await scene.call()).get("Refresh") == told


async def test_links_are_addresses_too(scene: Scene):
    backend = await scene.model()
    for value, told in {
        '<OWN/score?page=2>; rel="next"': '</wine/score?page=2>; rel="next"',
        "</score>;rel=prev,<OWN/../other>;rel=next": "</wine/score>;rel=prev,</wine/other>;rel=next",
        '<https://example.com/a,b>; title="</x>, \\"</y>"': '<https://example.com/a,b>; title="</x>, \\"</y>"',
        '<OWN/a>; title="open': '</wine/a>; title="open',
        "<>; rel=self": "</wine/predict>; rel=self",
        "<http://127.0.0.1:x/>; rel=next, </b>; rel=prev": None,
    }.items():
        backend.script = says(("Link", value), status=200)
        assert (await scene.call()).get("Link") == told, value


@pytest.mark.path("fast")  # aiohttp's client does not show what comes before an answer
async def test_early_hints_name_the_gateways_paths(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        own = f"http://{request.get('Host')}"
        hint = f"HTTP/1.1 103 Early Hints\r\nLink: <{own}/app.css>; rel=preload\r\nLocation: {own}/a\r\n\r\n"
        await peer.write(hint.encode())
        await peer.answer()

    await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request())
    hint = await caller.answer()
    assert (hint.status, hint.get("Link"), hint.get("Location")) == (
        103,
        "</wine/app.css>; rel=preload",
        "/wine/a",
    )
    assert (await caller.answer()).status == 200


async def test_the_predict_path_is_what_a_relative_address_is_relative_to(scene: Scene):
    await scene.model(script=says(("Location", "score")))
    assert (await scene.call()).get("Location") == "/wine/score"


async def test_a_backend_below_a_path(scene: Scene):
    backend = await scene.model()
    url = f"http://127.0.0.1:{backend.port}/ml/wine"
    await scene.model("below", backends=(Backend(version="1", url=url),))
    for value, told in {
        "OWN/ml/wine/score": "/below/score",
        "/ml/wine/score": "/below/score",
        "/ml/wine": "/below/",
        "score": "/below/score",
        "../score": None,  # no path of the gateway leads there
        "/score": None,
        "OWN/score": None,
        "/ml/winery": None,
        "OWN/ml/wine/../score": None,
        "OWN/ml/wine/%2e%2e/%2e%2e/other": None,
        "/ml/x/../wine/score": "/below/score",
    }.items():
        backend.script = says(("Location", value))
        assert (await scene.call("POST", "/below")).get("Location") == told, value


async def test_a_route_that_is_named_as_the_model(scene: Scene):
    await scene.model(script=says(("Location", "/wine/score/")))
    assert (await scene.call("POST", "/wine/wine/score")).get("Location") == "/wine/wine/score/"


V2 = "/v2/models/wine"


@pytest.mark.parametrize(
    ("asked", "said", "told"),
    [
        (f"{V2}/infer", f"{V2}/infer", f"{V2}/infer"),
        (f"{V2}/infer", f"OWN{V2}/ready", f"{V2}/ready"),
        (f"{V2}/infer", f"OWN{V2}/infer/", f"/wine{V2}/infer/"),
        (f"{V2}/infer", "/score", "/wine/score"),
        (f"{V2}/infer", "/v2/models/other/infer", "/wine/v2/models/other/infer"),
        (f"{V2}/versions/1/infer", f"OWN{V2}/versions/1/infer", f"{V2}/versions/1/infer"),
        (f"{V2}/versions/1/infer", f"{V2}/infer", f"{V2}/versions/1/infer"),  # the version stays
        (f"{V2}/versions/1/infer", f"{V2}/versions/2/infer", None),
        (f"{V2}/versions/1/infer", "/score", None),  # another version might answer there
    ],
)
async def test_the_open_inference_protocol(scene: Scene, asked: str, said: str, told: str | None):
    backend = await scene.model(script=says(("Location", said)))
    answer = await scene.call("POST", asked)
    assert (answer.status, answer.get("Location")) == (307, told)
    assert backend.seen[0].get("X-Forwarded-Prefix") is None  # the backend sees the whole path


async def test_callers_do_not_name_the_prefix(scene: Scene):
    backend = await scene.model()
    await scene.call(fields=[("X-Forwarded-Prefix", "/evil"), ("X_Forwarded_Prefix", "/evil")])
    assert backend.seen[0].all("X-Forwarded-Prefix") == ["/wine"]


async def test_an_address_does_not_come_in_a_trailer(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nLocation: http://10.0.0.1/\r\n\r\n"
        )

    await scene.model(script=script)
    assert (await scene.call()).trailers == []


async def test_a_client_that_follows_reaches_the_backend_through_the_gateway(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        if request.target == "/score":
            await says(("Location", "OWN/score/"))(request, peer)
        else:
            await peer.answer(200, request.body)

    backend = await scene.model(script=script, policy=Policy())
    answer = await asyncio.to_thread(
        requests.post,
        f"http://127.0.0.1:{scene.gateway.port}/wine/score",
        headers={"X-Api-Key": scene.key},
        json={"a": 1},
        timeout=patience(30),
    )
    assert (answer.status_code, answer.json()) == (200, {"a": 1})
    assert [seen.target for seen in backend.seen] == ["/score", "/score/"]
    assert all(seen.get("X-Api-Key") is None for seen in backend.seen)
    assert all(seen.get("X-Request-Id") for seen in backend.seen)


# -- a real server


@pytest.fixture
async def fastapi_backend() -> AsyncIterator[str]:
    import uvicorn
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    class Prefix:
        """As docs/how-to/redirects-and-prefixes.md tells authors of backends."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            prefix = dict(scope.get("headers", [])).get(b"x-forwarded-prefix", b"").decode()
            await self.app({**scope, "root_path": prefix} if prefix else scope, receive, send)

    app = FastAPI()

    @app.post("/score")
    async def score(row: dict[str, int]) -> dict[str, int]:
        return row

    @app.post("/nested/score/")
    async def nested(row: dict[str, int]) -> dict[str, int]:
        return row

    class Server(uvicorn.Server):
        def install_signal_handlers(self) -> None: ...

    server = Server(
        uvicorn.Config(Prefix(app), host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


async def test_fastapi(scene: Scene, fastapi_backend: str):
    await scene.model("fast", backends=(Backend(version="1", url=fastapi_backend, predict_path="/score"),))
    base = f"http://127.0.0.1:{scene.gateway.port}"

    def ask(method: str, path: str, **more: object) -> requests.Response:
        return requests.request(
            method,
            base + path,
            headers={"X-Api-Key": scene.key},
            timeout=patience(30),
            **more,  # type: ignore[arg-type]
        )

    for path in ("/fast/score/", "/fast/nested/score"):  # FastAPI redirects from one form to the other
        answer = await asyncio.to_thread(ask, "POST", path, json={"a": 1})
        assert (answer.status_code, answer.json()) == (200, {"a": 1})
        assert answer.history[0].headers["Location"].startswith("/fast/")
        assert answer.url.startswith(f"{base}/fast/")
    page = (await asyncio.to_thread(ask, "GET", "/fast/docs")).text
    assert "'/fast/openapi.json'" in page
    document = (await asyncio.to_thread(ask, "GET", "/fast/openapi.json")).json()
    assert document["servers"] == [{"url": "/fast"}]
