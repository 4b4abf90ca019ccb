"""A real registry of images (CNCF Distribution, Debian's docker-registry) for one test, and images to put there."""

import base64
import datetime as dt
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from tests.conftest import require
from tests.patience import patience

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
AUTHORIZATION = "Basic YW5hOnNlY3JldA=="  # ana, secret
# The registry is another program, whose clock a test may not have moved.
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
IN_LONG = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
_LISTENS = re.compile(r"listening on (127\.0\.0\.1:\d+)")


@contextmanager
def image_registry(folder: Path, auth: dict[str, Any] | None = None) -> Iterator[str]:
    """HOST:PORT of a registry of its own; `auth` as in its configuration."""
    program = shutil.which("docker-registry")
    require(
        "docker-registry",
        available=program is not None,
        why="docker-registry is not installed (apt install docker-registry)",
    )
    assert program is not None
    folder.mkdir()
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": "127.0.0.1:0", "secret": "x"},
        **({"auth": auth} if auth else {}),
    }
    path = folder / "config.json"  # JSON is YAML
    path.write_text(json.dumps(config))
    server = subprocess.Popen([program, "serve", str(path)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said, drain = [], None
    try:
        for line in server.stderr:
            said.append(line)
            if found := _LISTENS.search(line):
                break
        else:
            raise AssertionError("".join(said))
        drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        yield found[1]
    finally:
        server.terminate()
        server.wait(timeout=patience(30))
        server.stderr.close()
        if drain is not None:
            drain.wait(timeout=patience(30))


def basic_auth(folder: Path) -> dict[str, Any]:
    """ana with the password secret."""
    path = folder / "htpasswd"
    path.write_text(
        "ana:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
    )  # bcrypt, the one hash that this registry takes
    return {"htpasswd": {"realm": "images", "path": str(path)}}


class TokenService:
    """Gives tokens for what they ask for to ana, by the key that the registry trusts: the token protocol of Distribution."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(LONG_AGO)
            .not_valid_after(IN_LONG)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        self._trusted = folder / "tokens.pem"
        self._trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._server: TestServer | None = None

    async def start(self) -> dict[str, Any]:
        """How a registry is told to trust it."""
        app = web.Application()
        app.router.add_get("/token", self._give)
        self._server = TestServer(app)
        await self._server.start_server()
        return {
            "token": {
                "realm": str(self._server.make_url("/token")),
                "service": "images",
                "issuer": "tokens",
                "rootcertbundle": str(self._trusted),
            }
        }

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.close()

    async def _give(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != AUTHORIZATION:
            return web.Response(status=401)
        scopes = request.query.getall("scope", [])
        self.asked.append(tuple(scopes))
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        claims = {
            "iss": "tokens",
            "sub": "ana",
            "aud": request.query["service"],
            "exp": IN_LONG,
            "nbf": LONG_AGO,
            "iat": LONG_AGO,
            "jti": "1",
            "access": access,
        }
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": [self._chain]})
        return web.json_response({"token": token})


class Image:
    """An image of two platforms: an index, two manifests, and five blobs, one of which both share."""

    def __init__(self, *, oci: bool = True, seed: str = "") -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[
            tuple[str, str, bytes]
        ] = []  # digest, media type, content; those that are named first
        index_type, manifest_type = (OCI_INDEX, OCI_MANIFEST) if oci else (DOCKER_INDEX, DOCKER_MANIFEST)
        base = self._blob(b"base" * 200_000)
        listed = []
        for platform in ("amd64", "arm64"):
            config = self._blob(json.dumps({"architecture": platform, "os": "linux", "seed": seed}).encode())
            layers = [base, self._blob(f"layer {platform} {seed}".encode() * 10_000)]
            content = {"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers}
            found = self._manifest(manifest_type, content)
            listed.append({**found, "platform": {"architecture": platform, "os": "linux"}})
        index = self._manifest(index_type, {"schemaVersion": 2, "mediaType": index_type, "manifests": listed})
        self.digest = index["digest"]

    def _blob(self, content: bytes) -> dict[str, Any]:
        digest = digest_of(content)
        self.blobs[digest] = content
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}

    def _manifest(self, media_type: str, content: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(content, indent=3).encode()
        self.manifests.append((digest_of(body), media_type, body))
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}

    async def push(self, host: str, name: str) -> str:
        """Put it into a registry; its address there."""
        async with aiohttp.ClientSession(
            f"http://{host}", headers={"Authorization": AUTHORIZATION}
        ) as session:
            for digest, content in self.blobs.items():
                begun = await session.post(f"/v2/{name}/blobs/uploads/")
                place = urlsplit(begun.headers["Location"])
                url = f"{place.path}?{place.query}&digest={digest}"
                stored = await session.put(
                    url, data=content, headers={"Content-Type": "application/octet-stream"}
                )
                assert stored.status == 201, await stored.text()
            for digest, media_type, body in self.manifests:
                url = f"/v2/{name}/manifests/{digest}"
                stored = await session.put(url, data=body, headers={"Content-Type": media_type})
                assert stored.status == 201, await stored.text()
        return f"{host}/{name}@{self.digest}"

    async def pulled(self, host: str, name: str) -> set[str]:
        """The digests of all of it that a registry has under that name, each of which is what it should be."""
        found = set()
        async with aiohttp.ClientSession(f"http://{host}") as session:
            for digest in self.blobs:
                answer = await session.get(f"/v2/{name}/blobs/{digest}")
                if answer.status == 200:
                    assert await answer.read() == self.blobs[digest]
                    found.add(digest)
            for digest, media_type, body in self.manifests:
                answer = await session.get(f"/v2/{name}/manifests/{digest}", headers={"Accept": media_type})
                if answer.status == 200:
                    assert await answer.read() == body
                    found.add(digest)
        return found

    @property
    def digests(self) -> set[str]:
        return {*self.blobs, *(digest for digest, _, _ in self.manifests)}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Front:
    """A registry that stands in front of another one, and answers what `answer` does; the rest is passed on."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self.seen: list[tuple[str, str, str]] = []  # method, path with query, Authorization
        self.answer: Answer | None = None
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._server = TestServer(app)

    async def start(self) -> str:
        await self._server.start_server()
        return f"127.0.0.1:{self._server.port}"

    async def stop(self) -> None:
        await self._server.close()

    def paths(self, method: str) -> list[str]:
        return [path for asked, path, _ in self.seen if asked == method]

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs, request.headers.get("Authorization", "")))
        found = await self.answer(request) if self.answer is not None else None
        if found is not None:
            return found
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in {"Content-Type", "Accept", "Authorization", "Host"}
        }
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                URL(f"http://{self._behind}{request.path_qs}", encoded=True),
                headers=headers,
                data=await request.read(),
                allow_redirects=False,
            ) as answer,
        ):
            kept = {"Content-Type", "Location", "Docker-Content-Digest", "WWW-Authenticate"}
            passed = {name: value for name, value in answer.headers.items() if name in kept}
            if request.method == "HEAD":
                return web.Response(status=answer.status, headers=passed)
            return web.Response(status=answer.status, body=await answer.read(), headers=passed)
