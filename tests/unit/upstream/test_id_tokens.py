"""ID tokens from the metadata server: fetched once, refreshed in time, never sent in the clear."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.core.errors import UpstreamUnavailable
from gateway.upstream.egress_policy import EgressPolicy
from gateway.upstream.id_tokens import IdTokenProvider
from tests.flow.issuer import signer
from tests.patience import patience


class Metadata:
    """Google's metadata server, as far as ID tokens go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lasts_s = 3600.0
        self.statuses: list[int] = []
        self.flavor = "Google"
        self.body: str | None = None
        self.host = ""
        self.in_pieces = False

    async def identity(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        self.asked.append(request.query["audience"])
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), headers={"Metadata-Flavor": "Google"})
        token = signer().token(aud=request.query["audience"], lasts_s=self.lasts_s, jti=str(len(self.asked)))
        if self.in_pieces:
            answer = web.StreamResponse(headers={"Metadata-Flavor": self.flavor})
            await answer.prepare(request)
            for piece in (token[:-9], token[-9:]):
                await answer.write(piece.encode())
                await asyncio.sleep(
                    0.02
                )  # it arrives by itself; the test holds all the same where it does not
            return answer
        return web.Response(text=self.body or token, headers={"Metadata-Flavor": self.flavor})


@pytest.fixture
async def metadata() -> AsyncIterator[Metadata]:
    signer()  # makes a key, which must not take of the time that an answer may take
    metadata = Metadata()
    app = web.Application()
    app.router.add_get("/computeMetadata/v1/instance/service-accounts/default/identity", metadata.identity)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    metadata.host = f"127.0.0.1:{runner.addresses[0][1]}"
    yield metadata
    await runner.cleanup()


@pytest.fixture
async def tokens(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[IdTokenProvider]:
    monkeypatch.setattr("gateway.upstream.id_tokens._TIMEOUT_S", patience(30))
    tokens = IdTokenProvider(metadata_host=metadata.host, now=lambda: time.time() + tokens.ahead_s)  # type: ignore[attr-defined]
    tokens.ahead_s = 0.0  # type: ignore[attr-defined]
    await tokens.start()
    yield tokens
    await tokens.stop()


BACKEND = "https://wine-abc.a.run.app/base"


async def test_one_fetch_for_all_who_need_it(metadata: Metadata, tokens: IdTokenProvider):
    assert tokens.cached_fields(BACKEND) is None
    fetched = await asyncio.gather(*(tokens.fetch_fields(BACKEND) for _ in range(100)))
    assert len({tuple(fields) for fields in fetched}) == 1
    assert metadata.asked == ["https://wine-abc.a.run.app"]
    fields = tokens.cached_fields(BACKEND)
    assert fields is not None
    assert fields[0] == b"X-Serverless-Authorization: "
    assert fields[1].startswith(b"Bearer ey")
    await tokens.fetch_fields("https://beer-abc.a.run.app")
    assert metadata.asked[1:] == ["https://beer-abc.a.run.app"]


async def test_a_token_that_comes_in_pieces_is_whole(metadata: Metadata, tokens: IdTokenProvider):
    whole = await tokens.fetch_fields(BACKEND)
    metadata.in_pieces = True
    other = await tokens.fetch_fields("https://beer-abc.a.run.app")
    assert len(other[1]) == len(whole[1])


async def test_never_over_plain_http(metadata: Metadata, tokens: IdTokenProvider):
    assert tokens.cached_fields("http://wine-abc.a.run.app") == ()
    assert list(await tokens.fetch_fields("http://127.0.0.1:9")) == []
    assert metadata.asked == []


async def test_before_its_end_a_new_one_is_fetched_while_the_old_one_serves(
    metadata: Metadata, tokens: IdTokenProvider
):
    first = await tokens.fetch_fields(BACKEND)
    tokens.ahead_s = 3400.0  # type: ignore[attr-defined]
    metadata.lasts_s = 9000
    assert tokens.cached_fields(BACKEND) == first
    assert tokens.cached_fields(BACKEND) == first
    await asyncio.gather(*tokens._fetching.values())
    assert len(metadata.asked) == 2
    assert tokens.cached_fields(BACKEND) != first
    tokens.ahead_s = 8990.0  # type: ignore[attr-defined]
    assert tokens.cached_fields(BACKEND) is None, "too old to be used at all"


async def test_a_server_that_gives_the_same_token_again_is_not_asked_in_a_loop(
    metadata: Metadata, tokens: IdTokenProvider
):
    metadata.lasts_s = 200
    for _ in range(20):
        await tokens.fetch_fields(BACKEND)
        await asyncio.gather(*tokens._fetching.values())
    assert len(metadata.asked) == 1
    tokens.ahead_s = 20.0  # type: ignore[attr-defined]
    await tokens.fetch_fields(BACKEND)
    await asyncio.gather(*tokens._fetching.values())
    assert len(metadata.asked) == 2


async def test_a_failed_refresh_costs_nothing_as_long_as_the_old_one_is_good(
    metadata: Metadata, tokens: IdTokenProvider
):
    first = await tokens.fetch_fields(BACKEND)
    tokens.ahead_s = 3400.0  # type: ignore[attr-defined]
    metadata.statuses = [503]
    assert tokens.cached_fields(BACKEND) == first
    await asyncio.gather(*tokens._fetching.values(), return_exceptions=True)
    await asyncio.sleep(0)
    assert tokens.cached_fields(BACKEND) == first
    assert not tokens._fetching, "not at once again"


@pytest.mark.parametrize(
    "wrong",
    [
        {"statuses": [503]},
        {"statuses": [302]},
        {"flavor": "Evil"},
        {"body": "nonsense"},
        {"body": "a.b.c"},
        {"body": "a.eyJleHAiOiAibm8ifQ.c"},
        {"body": "x" * 10_000},
        {"body": "a.eyJleHAiOiAxfQ.c\r\nX-Evil: 1"},
    ],
)
async def test_what_is_no_token_is_not_sent(metadata: Metadata, tokens: IdTokenProvider, wrong):
    for name, value in wrong.items():
        setattr(metadata, name, value)
    with pytest.raises(UpstreamUnavailable):
        await tokens.fetch_fields(BACKEND)


async def test_without_a_metadata_server():
    tokens = IdTokenProvider(metadata_host="127.0.0.1:9")
    await tokens.start()
    with pytest.raises(UpstreamUnavailable):
        await tokens.fetch_fields(BACKEND)
    await tokens.stop()


async def test_a_backend_behind_a_domain_of_its_own_names_its_audience(
    metadata: Metadata, tokens: IdTokenProvider
):
    url, audience = "https://wine.example.com", "https://wine-abc.a.run.app"
    assert tokens.cached_fields(url, audience) is None
    fields = list(await tokens.fetch_fields(url, audience))
    assert metadata.asked == [audience]
    assert tokens.cached_fields(url, audience) == tuple(fields)
    assert tokens.cached_fields(audience) == tuple(fields), "one token for one audience"
    assert tokens.cached_fields(url) is None
    await tokens.fetch_fields(url)
    assert metadata.asked == [audience, url]
    assert tokens.cached_fields("http://wine.example.com", audience) == (), "never in the clear"


async def test_a_host_that_anybody_can_have_gets_no_token_for_somebody_else(metadata: Metadata):
    """A writer of the registry must not have a token that is good elsewhere sent to a service of their own."""
    egress_policy = EgressPolicy("cloud", hosts=("*.example.com",))
    tokens = IdTokenProvider(
        metadata_host=metadata.host, may_choose_audience=egress_policy.may_choose_audience
    )
    await tokens.start()
    victim = "https://wine-abc.a.run.app"
    for url in (
        "https://evil-abc.a.run.app",
        "https://example.com.evil.run.app",
        "https://evil.run.app/example.com",
    ):
        with pytest.raises(UpstreamUnavailable):
            tokens.cached_fields(url, victim)
        with pytest.raises(UpstreamUnavailable):
            await tokens.fetch_fields(url, victim)
    assert metadata.asked == []
    await tokens.fetch_fields("https://wine.example.com", victim)
    await tokens.fetch_fields("https://evil-abc.a.run.app")
    await tokens.fetch_fields("https://evil-abc.a.run.app", "https://evil-abc.a.run.app")
    assert metadata.asked == [victim, "https://evil-abc.a.run.app"]
    await tokens.stop()
