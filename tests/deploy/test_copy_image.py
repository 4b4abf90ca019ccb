"""Images are copied between registries by digest: all platforms, nothing twice, never another image."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway.deploy.copy_image import copied_image_address, copy_image
from gateway.deploy.image_credentials import find_credentials
from gateway.deploy.oci_registry_client import split_repository_and_digest
from gateway.deploy.target import DeployError
from tests.damage import one_bit_off
from tests.deploy.image_registry import AUTHORIZATION, Front, Image, TokenService, basic_auth, image_registry


def nobody(host: str) -> None:
    del host


def ana(host: str) -> tuple[str, str]:
    del host
    return "ana", "secret"


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with image_registry(tmp_path_factory.mktemp("images") / "qa") as host:
        yield host


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with image_registry(tmp_path_factory.mktemp("images") / "prod") as host:
        yield host


@pytest.fixture
async def front(qa: str) -> AsyncIterator[Front]:
    front = Front(qa)
    yield front
    await front.stop()


@pytest.mark.parametrize("oci", [True, False], ids=["OCI", "Docker"])
async def test_all_platforms_arrive_bit_for_bit(qa: str, prod: str, tmp_path: Path, oci: bool):
    image, name = Image(oci=oci, seed=tmp_path.name), f"team/{tmp_path.name.replace('_', '-').lower()}"
    source = await image.push(qa, name)
    target = copied_image_address(source, f"{prod}/models")
    assert target == f"{prod}/models/{name.rpartition('/')[2]}@{image.digest}"
    told: list[str] = []
    assert await copy_image(source, target, nobody, told.append)
    assert await image.pulled(prod, split_repository_and_digest(target)[0].name) == image.digests
    assert len(told) == len(image.blobs)
    assert not await copy_image(source, target, nobody)


async def test_one_manifest_without_an_index(qa: str, prod: str):
    image = Image(seed="one")
    await image.push(qa, "one")
    digest = image.manifests[0][0]
    assert await copy_image(f"{qa}/one@{digest}", f"{prod}/one@{digest}", nobody)
    found = await image.pulled(prod, "one")
    assert digest in found
    assert len(found) == 4


async def test_blobs_that_are_there_are_not_sent_again(qa: str, prod: str):
    first, second = Image(seed="first"), Image(seed="second")
    await copy_image(await first.push(qa, "base-1"), f"{prod}/shared@{first.digest}", nobody)
    told: list[str] = []
    await copy_image(await second.push(qa, "base-2"), f"{prod}/shared@{second.digest}", nobody, told.append)
    assert len(told) == len(second.blobs) - 1
    assert await second.pulled(prod, "shared") == second.digests


async def test_within_one_registry_blobs_are_mounted(front: Front):
    host = await front.start()
    image = Image(seed="mounted")
    await image.push(host, "here")
    front.seen.clear()
    assert await copy_image(f"{host}/here@{image.digest}", f"{host}/there@{image.digest}", nobody)
    assert await image.pulled(host, "there") == image.digests
    assert sum("mount=sha256:" in path for path in front.paths("POST")) == len(image.blobs)
    assert not [path for path in front.paths("PUT") if "/blobs/" in path]


async def test_where_nothing_can_be_mounted_it_is_sent(front: Front):
    host = await front.start()
    image = Image(seed="unmountable")
    await image.push(host, "from")

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if "mount" not in request.query:
            return None
        raise web.HTTPAccepted(headers={"Location": await begin(host, "to")})

    front.answer = answer
    assert await copy_image(f"{host}/from@{image.digest}", f"{host}/to@{image.digest}", nobody)
    assert await image.pulled(host, "to") == image.digests


async def begin(host: str, name: str) -> str:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{host}/v2/{name}/blobs/uploads/") as answer,
    ):
        return answer.headers["Location"]


@pytest.mark.parametrize("what", ["manifest", "index", "blob", "longer blob", "shorter blob"])
async def test_another_content_than_that_of_the_digest_does_not_arrive(
    front: Front, qa: str, prod: str, what: str
):
    image, name = Image(seed=what), f"wrong-{what.replace(' ', '-')}"
    await image.push(qa, name)
    last_blob = [*image.blobs][-1]
    wrong = {"manifest": image.manifests[0][0], "index": image.digest}.get(what, last_blob)
    content = image.blobs.get(wrong, b'{"schemaVersion": 2, "manifests": []}')
    bodies = {"blob": one_bit_off(content), "longer blob": content + b"!", "shorter blob": content[:-1]}

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.method == "GET" and request.path.endswith(wrong):
            return web.Response(body=bodies.get(what, content), content_type="application/json")
        return None

    front.answer = answer
    host = await front.start()
    target = f"{prod}/{name}@{image.digest}"
    with pytest.raises(DeployError, match=f"serves another (manifest|blob) than {wrong}"):
        await copy_image(f"{host}/{name}@{image.digest}", target, nobody)
    arrived = await image.pulled(prod, name)
    assert not {wrong, image.digest} & arrived
    front.answer = None
    assert await copy_image(f"{host}/{name}@{image.digest}", target, nobody)
    assert await image.pulled(prod, name) == image.digests


@pytest.mark.parametrize("number", range(4))
async def test_a_copy_that_breaks_off_looks_like_none_and_goes_on(
    front: Front, qa: str, prod: str, number: int
):
    image, name = Image(seed=f"broken {number}"), f"broken-{number}"
    await image.push(qa, name)
    blobs = [*image.blobs]

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.method == "GET" and request.path.endswith(blobs[number]):
            broken = web.StreamResponse(headers={"Content-Length": str(len(image.blobs[blobs[number]]))})
            await broken.prepare(request)
            await broken.write(image.blobs[blobs[number]][:10])
            assert request.transport is not None
            request.transport.close()
            return broken
        return None

    front.answer = answer
    host = await front.start()
    target = f"{prod}/{name}@{image.digest}"
    with pytest.raises(DeployError, match="broke off in the blob"):
        await copy_image(f"{host}/{name}@{image.digest}", target, nobody)
    arrived = await image.pulled(prod, name)
    assert not {blobs[number], image.digest} & arrived
    front.answer = None
    told: list[str] = []
    assert await copy_image(f"{host}/{name}@{image.digest}", target, nobody, told.append)
    assert len(told) == len(blobs) - len(arrived & image.blobs.keys()), "what had arrived is not sent again"
    assert await image.pulled(prod, name) == image.digests


async def test_a_registry_that_keeps_another_manifest_is_found_out(front: Front, prod: str, qa: str):
    """The target says 201, and then serves something else under the digest."""
    image = Image(seed="liar")
    source = await image.push(prod, "liar")
    written = False

    async def answer(request: web.Request) -> web.StreamResponse | None:
        nonlocal written
        if request.path.endswith(image.digest):
            if request.method == "PUT":
                written = True
                return web.Response(status=201)
            return web.Response(body=b"{}") if written else web.Response(status=404)
        return None

    front.answer = answer
    host = await front.start()
    with pytest.raises(DeployError, match="serves another manifest than"):
        await copy_image(source, f"{host}/liar@{image.digest}", nobody)


async def test_a_login_is_used(tmp_path: Path, qa: str):
    image = Image(seed="login")
    with image_registry(tmp_path / "private", basic_auth(tmp_path)) as private:
        source = await image.push(private, "wine")
        with pytest.raises(DeployError, match=f"docker login {private}"):
            await copy_image(source, f"{qa}/login@{image.digest}", nobody)
        (tmp_path / "config.json").write_text(f'{{"auths": {{"{private}": {{"auth": "YW5hOnNlY3JldA=="}}}}}}')
        assert await copy_image(
            source, f"{qa}/login@{image.digest}", lambda host: find_credentials(host, tmp_path)
        )
        assert await image.pulled(qa, "login") == image.digests


async def test_tokens_are_asked_for_by_what_they_are_for(tmp_path: Path, qa: str):
    image = Image(seed="token")
    tokens = TokenService(tmp_path)
    with image_registry(tmp_path / "private", await tokens.start()) as private:
        source = await image.push(qa, "for-tokens")
        with pytest.raises(DeployError, match="answered 401"):
            await copy_image(source, f"{private}/wine@{image.digest}", nobody)
        assert await copy_image(source, f"{private}/wine@{image.digest}", ana)
        assert await copy_image(f"{private}/wine@{image.digest}", f"{private}/other@{image.digest}", ana)
        assert not await copy_image(f"{private}/wine@{image.digest}", f"{private}/other@{image.digest}", ana)
    assert ("repository:wine:pull,push",) in tokens.asked
    assert ("repository:other:pull,push", "repository:wine:pull") in tokens.asked
    await tokens.stop()


async def test_credentials_do_not_follow_a_redirect(front: Front, qa: str, prod: str):
    """Artifact Registry's blobs lie in a storage of another host."""
    image = Image(seed="redirect")
    await image.push(qa, "redirect")
    storage = Front(qa)
    elsewhere = (await storage.start()).replace("127.0.0.1", "localhost")

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.method == "GET" and "/blobs/" in request.path:
            raise web.HTTPTemporaryRedirect(f"http://{elsewhere}{request.path}")
        return None

    front.answer = answer
    host = await front.start()
    assert await copy_image(f"{host}/redirect@{image.digest}", f"{prod}/redirect@{image.digest}", ana)
    assert {authorization for _, _, authorization in storage.seen} == {""}
    assert len(storage.seen) == len(image.blobs)
    await storage.stop()


async def test_what_a_netrc_holds_goes_to_no_registry(
    front: Front, qa: str, prod: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else the login for any host (`default`) goes to whatever registry an image names, in the place of a token."""
    (tmp_path / "netrc").write_text("default login ben password hidden")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    image = Image(seed="netrc")
    await image.push(qa, "netrc")

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return None

    front.answer = answer
    host = await front.start()
    assert await copy_image(f"{host}/netrc@{image.digest}", f"{prod}/netrc@{image.digest}", ana)
    assert {authorization for _, _, authorization in front.seen} == {"", AUTHORIZATION}


async def test_the_environments_proxy_is_used(
    front: Front, qa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Here the proxy answers by itself, in the place of the registry."""
    host = await front.start()
    monkeypatch.setenv("http_proxy", f"http://ben:secret@{host}")
    monkeypatch.setenv("no_proxy", qa)
    digest = f"sha256:{hashlib.sha256(tmp_path.name.encode()).hexdigest()}"

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.headers["Proxy-Authorization"] == "Basic YmVuOnNlY3JldA=="
        return web.Response(status=418)

    front.answer = answer
    with pytest.raises(DeployError, match="answered 418"):
        await copy_image(f"{qa}/proxy@{digest}", f"localhost:1/proxy@{digest}", nobody)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DeployError, match="there is no image"):
        await copy_image(f"{qa}/proxy@{digest}", f"{qa}/other@{digest}", nobody)


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://127.0.0.1:{port}/token"',
        'Bearer realm="https://localhost:{port}/token"',
        'Bearer realm="http://[::1]:{port}/token"',
        'Bearer realm="http://example.com/token"',
        'Bearer realm="https://ben:secret@example.com/token"',
        'Bearer realm="https://[no/token"',
        'Bearer realm="file:///etc/passwd"',
        "Bearer",
        "Digest realm=x",
    ],
)
async def test_a_strangers_registry_names_no_token_service_on_this_machine(
    challenge: str, prod: str, front: Front, monkeypatch: pytest.MonkeyPatch
):
    port = (await front.start()).rpartition(":")[2]
    stranger = Front(prod)

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(status=401, headers={"WWW-Authenticate": challenge.format(port=port)})

    stranger.answer = answer
    host = await stranger.start()
    monkeypatch.setenv("http_proxy", f"http://{host}")  # stands for the registry at the name below
    monkeypatch.setattr(
        "gateway.deploy.oci_registry_client.ImageRepository.url",
        lambda one, path: f"http://{one.host}/{path}",
    )
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    image = f"images.example.com/wine@sha256:{'a' * 64}"
    with pytest.raises(DeployError, match="in a way that is not supported"):
        await copy_image(image, f"images.example.com/other@sha256:{'a' * 64}", ana)
    assert not front.seen
    await stranger.stop()


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:1/upload",
        "https://{host}/upload",
        "http://ben:secret@{host}/upload",
        "http://[no/x",
        "",
    ],
)
async def test_an_upload_goes_nowhere_else_than_to_its_registry(front: Front, qa: str, place: str):
    """Neither to another port, nor by another protocol: the credentials go with it."""
    image = Image(seed=f"place {place}")
    source = await image.push(qa, "place")
    host = await front.start()

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if request.method != "POST":
            return None
        return web.Response(status=202, headers={"Location": place.format(host=host)} if place else {})

    front.answer = answer
    with pytest.raises(DeployError, match="names no place of its own for an upload"):
        await copy_image(source, f"{host}/there@{image.digest}", ana)


@pytest.mark.parametrize(
    "descriptor",
    [
        {"digest": "sha256:../../other/manifests/latest?", "size": 1},
        {"digest": f"sha512:{'a' * 128}", "size": 1},
        {"digest": f"sha256:{'a' * 64}", "size": -1},
        {"digest": f"sha256:{'a' * 64}"},
    ],
)
@pytest.mark.parametrize("part", ["config", "layers", "manifests"])
async def test_a_manifest_that_names_no_digest_is_refused(
    front: Front, prod: str, descriptor: dict[str, object], part: str
):
    """What it names becomes part of addresses at the registry that it is copied to."""
    body = json.dumps({part: descriptor if part == "config" else [descriptor]}).encode()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(body=body, content_type="application/vnd.oci.image.manifest.v1+json")

    front.answer = answer
    host = await front.start()
    with pytest.raises(DeployError, match=f"the manifest {digest} cannot be read"):
        await copy_image(f"{host}/bad@{digest}", f"{prod}/bad@{digest}", nobody)
    assert {path for _, path, _ in front.seen} == {f"/v2/bad/manifests/{digest}"}
