"""Copy a container image from one container registry to another.

All its platforms are copied, by digest. The blobs come first. A manifest is written after all that it names, so a copy that
is interrupted leaves nothing that looks complete, and the next one goes on with what is missing.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import aiohttp
import msgspec
from msgspec import Meta

from gateway.deploy.oci_registry_client import (
    FindCredentials,
    ImageManifest,
    ImageRepository,
    OciRegistryClient,
    split_repository_and_digest,
)
from gateway.deploy.target import DeployError

_DEPTH: Final = 4  # of indexes within indexes


class _Descriptor(msgspec.Struct):
    # It becomes part of an address, and what it names is checked by this algorithm alone.
    digest: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}\\Z")]
    size: Annotated[int, Meta(ge=0)]
    urls: list[str] = []  # a layer that lies elsewhere and must not be copied


class _Content(msgspec.Struct):
    """What a manifest (config, layers) or an index (manifests) names; both of OCI and of Docker."""

    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] | None = None


def copied_image_address(pinned_image: str, images: str) -> str:
    """The address of the copy of an image in the repository `images`.

    It has the last name of `pinned_image` and the same digest. Raises DeployError, also where it has no digest.
    """
    source, digest = split_repository_and_digest(pinned_image)
    if not digest:
        raise DeployError(
            f"{pinned_image[:200]} is named by a tag, which can move: name it @sha256:…", code=65
        )
    inside = images.rstrip("/")
    if f"{source}/".startswith(f"{inside}/"):
        return pinned_image  # it is there
    return f"{inside}/{source.name.rpartition('/')[2]}@{digest}"


async def copy_image(
    image: str, target: str, find_credentials: FindCredentials, tell: Callable[[str], Any] = lambda _: None
) -> bool:
    """Copy `image` to `target`.

    False where it was there. Both are HOST/REPOSITORY@sha256:… of one digest. Raises DeployError.
    """
    (source, digest), (to, other) = split_repository_and_digest(image), split_repository_and_digest(target)
    if not digest or digest != other:
        raise DeployError(f"{image} and {target} must be of one digest", code=65)
    connector = aiohttp.TCPConnector(limit_per_host=4)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
    ) as session:
        copy = _Copy(OciRegistryClient(session, find_credentials), source, to, tell)
        if await copy.registry.manifest(to, digest) is not None:
            return False
        await copy.manifest(digest, _DEPTH)
        return True


class _Copy:
    def __init__(
        self,
        registry: OciRegistryClient,
        source: ImageRepository,
        target: ImageRepository,
        tell: Callable[[str], Any],
    ) -> None:
        self.registry, self._source, self._target, self._tell = registry, source, target, tell

    async def manifest(self, digest: str, depth: int) -> None:
        """The manifest with all that it names, or the index with all of its manifests."""
        found = await self.registry.manifest(self._source, digest)
        if found is None:
            raise DeployError(f"there is no image {self._source}@{digest}", code=65)
        content = _read(found)
        if content.manifests is not None and not depth:
            raise DeployError(f"{self._source}@{digest} is an index of indexes without an end", code=65)
        for one in content.manifests or ():
            await self.manifest(one.digest, depth - 1)
        for blob in (content.config, *content.layers):
            if blob is not None and not blob.urls:
                await self._blob(blob)
        await self.registry.push_manifest_by_digest(self._target, found)

    async def _blob(self, blob: _Descriptor) -> None:
        if await self.registry.has_blob(self._target, blob.digest):
            return
        self._tell(f"{blob.digest[:19]}…, {blob.size / 1e6:.1f} MB")
        await self.registry.copy_missing_blob(self._source, self._target, blob.digest, blob.size)


def _read(manifest: ImageManifest) -> _Content:
    try:
        return msgspec.json.decode(manifest.body, type=_Content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DeployError(f"the manifest {manifest.digest} cannot be read: {error}", code=65) from None
