"""A client of image registries (OCI).

It reads and writes manifests and blobs by digest. OCI Distribution Specification 1.1
(https://github.com/opencontainers/distribution-spec/blob/main/spec.md), with the token authentication of
https://distribution.github.io/distribution/spec/auth/token/. What is read is checked against its digest here; what is
written is checked by the registry and, for a manifest, read again.
"""

import base64
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from yarl import URL

from gateway.deploy.target import DeployError

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024  # the specification's own limit
_CHUNK_BYTES: Final = 256 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)
_REFERENCE: Final = re.compile(
    r"(?P<host>[a-zA-Z0-9.-]+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?)/(?P<repository>[a-z0-9][a-z0-9._/-]*)"
    r"(?::[\w][\w.-]{0,127})?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')

FindCredentials = Callable[[str], tuple[str, str] | None]  # host -> user and password; None: nobody


class ImageRepository(NamedTuple):
    """A repository of images in a registry.

    `host` is the registry's host (with its port), `name` the repository's name there.
    """

    host: str
    name: str

    def url(self, path: str) -> str:
        """The URL of `path` in the repository's API. Only a registry on this machine is plain HTTP, as in docker."""
        scheme = "http" if is_loopback(self.host) else "https"
        return f"{scheme}://{self.host}/v2/{self.name}/{path}"

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"


class ImageManifest(NamedTuple):
    """The manifest or index of an image. `body` is byte for byte what `digest` names."""

    digest: str
    media_type: str
    body: bytes


def is_loopback(host: str) -> bool:
    """Whether the host is this machine. `host` may have a port."""
    return urlsplit(f"//{host}").hostname in {"localhost", "127.0.0.1", "::1"}


def split_repository_and_digest(image: str) -> tuple[ImageRepository, str]:
    """Split an image's name into its repository and its digest.

    The name is `HOST/NAME[:TAG][@DIGEST]`. The digest is sha256:…, and empty where there is none; a tag is dropped. Raises
    DeployError.
    """
    found = _REFERENCE.fullmatch(image)
    if found is None or not ("." in found["host"] or ":" in found["host"] or found["host"] == "localhost"):
        raise DeployError(
            f"{image[:200]!r} names no image at a registry: write HOST/REPOSITORY@sha256:…", code=65
        )
    return ImageRepository(found["host"], found["repository"]), found["digest"] or ""


class OciRegistryClient:
    """A client of an image registry. It reads and writes the manifests and blobs of images. All methods raise DeployError."""

    def __init__(self, session: aiohttp.ClientSession, find_credentials: FindCredentials) -> None:
        self._session = session
        self._find_credentials = find_credentials
        self._authorization: dict[tuple[str, str], str] = {}  # by host and scope

    # -- manifests

    async def manifest(self, repository: ImageRepository, digest: str) -> ImageManifest | None:
        """Read the manifest with that digest. None where there is none. One that is not of that digest is an error."""
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        async with self._ask("GET", repository, f"manifests/{digest}", headers=headers) as answer:
            if answer.status == 404:
                return None
            _expect(answer, f"the manifest {digest} in {repository}", 200)
            body = await _at_most(answer, _MAX_MANIFEST_BYTES)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        _check(body, digest, f"{repository} serves another manifest than")
        return ImageManifest(digest, media_type, body)

    async def push_manifest_by_digest(self, repository: ImageRepository, manifest: ImageManifest) -> None:
        """Push a manifest by its digest. It is read again, because a registry may not have kept it."""
        path, headers = f"manifests/{manifest.digest}", {"Content-Type": manifest.media_type}
        async with self._ask(
            "PUT", repository, path, writes=True, data=manifest.body, headers=headers
        ) as answer:
            _expect(answer, f"{repository} did not take the manifest {manifest.digest}", 201)
        if await self.manifest(repository, manifest.digest) is None:
            raise DeployError(f"{repository} took the manifest {manifest.digest} and does not have it")

    # -- blobs

    async def has_blob(self, repository: ImageRepository, digest: str) -> bool:
        """Whether the repository has the blob already."""
        async with self._ask("HEAD", repository, f"blobs/{digest}") as answer:
            if answer.status == 404:
                return False
            _expect(answer, f"the blob {digest} in {repository}", 200)
            return True

    async def copy_missing_blob(
        self, source: ImageRepository, target: ImageRepository, digest: str, size: int
    ) -> None:
        """Copy one blob, which `target` does not have, from `source` to `target`.

        Within one registry it is mounted, else it comes through here.
        """
        mount = f"?mount={digest}&from={source.name}" if source.host == target.host else ""
        also = source if mount else None
        async with self._ask("POST", target, f"blobs/uploads/{mount}", writes=True, reads=also) as answer:
            if answer.status == 201 and mount:
                return
            _expect(answer, f"{target} takes no upload", 202)
            location = answer.headers.get("Location", "")
            upload = _url(location, base=answer.url)
        # Nor by plain HTTP, or at another port: the credentials go there.
        if not location or upload is None or upload.origin() != URL(target.url("")).origin():
            raise DeployError(f"{target} names no place of its own for an upload: {location[:200]!r}")
        done = False
        try:
            await self._upload(source, target, digest, size, upload)
            done = True
        finally:
            if not done:
                await self._cancel(target, upload)

    async def _upload(
        self, source: ImageRepository, target: ImageRepository, digest: str, size: int, upload: URL
    ) -> None:
        async with self._ask("GET", source, f"blobs/{digest}") as blob:
            _expect(blob, f"the blob {digest} in {source}", 200)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            content = _CheckedBlob(blob, digest, size, source)
            place = upload.update_query({"digest": digest})
            try:
                async with self._send(
                    "PUT", target, place, writes=True, data=content.chunks(), headers=headers
                ) as answer:
                    _expect(answer, f"{target} did not take the blob {digest}", 201)
            except DeployError:
                if content.problem is not None:  # aiohttp says only that the request could not be sent
                    raise content.problem from None
                raise

    async def _cancel(self, target: ImageRepository, upload: URL) -> None:
        """So that half a blob does not lie around; a registry that is away removes it by itself."""
        try:
            async with self._send("DELETE", target, upload, writes=True):
                pass
        except DeployError:
            pass

    # -- requests

    @asynccontextmanager
    async def _ask(
        self,
        method: str,
        repository: ImageRepository,
        path: str,
        *,
        writes: bool = False,
        reads: ImageRepository | None = None,
        **options: Any,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer to a request, with credentials where they are asked for; `reads` is a second repository it reads."""
        scope = _scope(repository, writes=writes) + (f" {_scope(reads, writes=False)}" if reads else "")
        url = URL(repository.url(path), encoded=True)
        async with self._request(method, url, repository.host, scope, options) as answer:
            if answer.status != 401:
                yield answer
                return
            challenge = answer.headers.get("WWW-Authenticate", "")
        self._authorization = {
            key: one for key, one in self._authorization.items() if key[0] != repository.host
        }
        await self._authorize(repository.host, scope, challenge)
        async with self._request(method, url, repository.host, scope, options) as answer:
            yield answer

    @asynccontextmanager
    async def _send(
        self, method: str, repository: ImageRepository, url: URL, *, writes: bool, **options: Any
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer to the further request of an upload that was begun: its credentials are known."""
        scope = _scope(repository, writes=writes)
        async with self._request(method, url, repository.host, scope, options) as answer:
            yield answer

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, host: str, scope: str, options: Mapping[str, Any]
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        headers = dict(options.get("headers", {}))
        # One that was given for more covers what is asked for: an upload follows a request that named the mount, too.
        known = next(
            (a for (h, s), a in self._authorization.items() if h == host and s.startswith(scope)), ""
        )
        if known:
            headers["Authorization"] = known
        rest = {name: value for name, value in options.items() if name != "headers"}
        try:
            # aiohttp sends Authorization on to no other host, such as the storage that a blob lies in.
            async with self._session.request(
                method,
                url,
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=method in {"GET", "HEAD"},
                **_proxy(url),
                **rest,
            ) as answer:
                yield answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise DeployError(f"the registry of images {host} does not answer: {reason}") from error

    async def _authorize(self, host: str, scope: str, challenge: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        credentials = self._find_credentials(host)
        basic = basic_authorization(*credentials) if credentials is not None else ""
        if scheme.lower() == "basic":
            if not basic:
                raise DeployError(f"{host} wants a login: docker login {host}")
            self._authorization[host, scope] = basic
            return
        parts = dict(_CHALLENGE.findall(rest))
        realm = _url(parts.get("realm", ""))
        if scheme.lower() != "bearer" or realm is None or not _is_realm_of(host, realm):
            raise DeployError(
                f"{host} asks for credentials in a way that is not supported: {challenge[:200]!r}"
            )
        query = [("service", parts.get("service", "")), *(("scope", one) for one in scope.split(" "))]
        try:
            async with self._session.get(
                realm.extend_query(query),
                headers={"Authorization": basic} if basic else {},
                timeout=_TIMEOUT,
                allow_redirects=False,
                **_proxy(realm),
            ) as answer:
                if answer.status != 200:
                    raise DeployError(
                        f"{host} refuses: its tokens' service answered {answer.status}", code=77
                    )
                said = msgspec.json.decode(await _at_most(answer, _MAX_MANIFEST_BYTES), type=_Token)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise DeployError(f"no token for {host}: {error}") from error
        self._authorization[host, scope] = f"Bearer {said.token or said.access_token}"


def _url(text: str, *, base: URL | None = None) -> URL | None:
    """What a registry names, relative to `base`; None where that is no address of a host."""
    try:
        url = URL(text, encoded=True) if base is None else base.join(URL(text, encoded=True))
        is_one = url.scheme in {"http", "https"} and url.host and url.port and url.raw_user is None
        return url if is_one else None
    except ValueError:
        return None


def _proxy(url: URL) -> dict[str, Any]:
    """The proxy that the environment names. aiohttp's `trust_env` finds it as well, but also sends what is in .netrc to any host."""
    proxy = URL(getproxies().get(url.scheme, ""))
    if not proxy.host or proxy_bypass(url.host or ""):
        return {}
    auth = {"Authorization": basic_authorization(proxy.user, proxy.password or "")} if proxy.user else {}
    return {"proxy": proxy.with_user(None), "proxy_headers": auth}  # aiohttp makes it Proxy-Authorization


def _is_realm_of(host: str, realm: URL) -> bool:
    """Whether the token service may be asked for the registry: a stranger's registry sends us to nobody on this machine."""
    return is_loopback(host) if is_loopback(realm.authority) else realm.scheme == "https"


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def basic_authorization(user: str, password: str) -> str:
    """The value of the header field Authorization for a user with a password (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _scope(repository: ImageRepository, *, writes: bool) -> str:
    return f"repository:{repository.name}:{'pull,push' if writes else 'pull'}"


def _expect(answer: aiohttp.ClientResponse, what: str, status: int) -> None:
    if answer.status != status:
        code = 77 if answer.status in {401, 403} else 69
        raise DeployError(f"{what}: the registry answered {answer.status}", code=code)


async def _at_most(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    body = b""
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise DeployError(f"{answer.url.host} sent more than {limit} bytes")
    return body


def _check(body: bytes, digest: str, what: str) -> None:
    found = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if found != digest:
        raise DeployError(f"{what} {digest}: {found}", code=65)


class _CheckedBlob:
    """The content of a blob. It breaks off before its last chunk, with `problem` set, where it is not of that digest and size."""

    def __init__(self, blob: aiohttp.ClientResponse, digest: str, size: int, source: ImageRepository) -> None:
        self._blob, self._digest, self._size, self._source = blob, digest, size, source
        self.problem: DeployError | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        total, read = hashlib.sha256(), 0
        try:
            async for chunk in self._blob.content.iter_chunked(_CHUNK_BYTES):
                total.update(chunk)
                read += len(chunk)
                if read >= self._size:
                    self._check(total.hexdigest(), read)
                yield chunk
            self._check(total.hexdigest(), read)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.problem = DeployError(f"{self._source} broke off in the blob {self._digest}: {error}")
            raise self.problem from error

    def _check(self, found: str, read: int) -> None:
        if (f"sha256:{found}", read) != (self._digest, self._size):
            self.problem = DeployError(
                f"{self._source} serves another blob than {self._digest}: {read} bytes of sha256:{found}",
                code=65,
            )
            raise self.problem
