"""The fallback copy of the registry, for a start while the registry is unreachable.

It is in a file or in Cloud Storage:

    file:/var/lib/chips/fallback.gz     kept by every gateway for itself
    gs://bucket/chips/fallback.gz       written with each change to the registry; gateways only read it

It holds what a gateway mirrors, models and revocations above all, and what `gateway.registry.fallback_api_keys` keeps
of API keys. It is gzip (so damage is noticed) over lines of JSON: a head, then a document each, then a key each.
"""

import asyncio
import gzip
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.make_cloud_storage_client import make_storage_client
from gateway.registry.base import Document, MirroredListing, Registry, RegistryError, Unavailable
from gateway.registry.fallback_api_keys import FallbackKeys, update_fallback_keys

_FORMAT: Final = 1
_TIMEOUT_S: Final = 5.0
_ATTEMPTS: Final = 5
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class FallbackContent(NamedTuple):
    """The content of a fallback copy. It is the registry's listing, and API keys where they are included."""

    listing: MirroredListing
    age_s: float  # since it was written
    keys: FallbackKeys | None = None  # None where it was written without any


class FallbackStore(Protocol):
    """The interface of a store for the fallback copy."""

    saved_by_gateways: bool

    async def load(self) -> FallbackContent | None:
        """Load the fallback copy. None where there is none yet. Raises RegistryError where it cannot be read."""

    async def save_if_newer(self, listing: MirroredListing, keys: FallbackKeys | None = None) -> bool:
        """Save the copy if the stored one is older. Returns False where it is as new. Raises RegistryError."""


def open_fallback(url: str) -> FallbackStore:
    """Open the fallback store at `url`. ValueError says what is wrong with the URL."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.query or parts.fragment:
        raise ValueError("a fallback takes no options: write file:/path or gs://bucket/object")
    if parts.scheme == "file" and not parts.netloc and path.startswith("/") and not path.endswith("/"):
        return FileFallback(Path(path))
    if parts.scheme == "gs" and _BUCKET.fullmatch(parts.netloc) and path.strip("/"):
        return CloudStorageFallback(parts.netloc, path.lstrip("/"))
    raise ValueError(f"{url[:200]!r} is no fallback: write file:/absolute/path or gs://bucket/object")


async def refresh_fallback(fallback: FallbackStore, registry: Registry, *, with_keys: bool) -> bool:
    """Bring the fallback copy up to date with the registry. Only what is newer is read, where that is possible."""
    try:
        kept = await fallback.load()
    except RegistryError:
        kept = None  # one that is damaged is replaced
    watch = registry.watch(kept.listing if kept is not None else None)
    try:
        async for listing in watch:
            if listing is not None:
                before = kept.keys if kept is not None else None
                keys = await update_fallback_keys(registry, listing, before) if with_keys else None
                return await fallback.save_if_newer(listing, keys)
    finally:
        await watch.aclose()  # type: ignore[attr-defined]
    raise Unavailable("the registry ended its watch")


class FileFallback:
    """The fallback copy in a local file."""

    saved_by_gateways = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return f"file:{self._path}"

    async def load(self) -> FallbackContent | None:
        return await asyncio.to_thread(self._load)

    async def save_if_newer(self, listing: MirroredListing, keys: FallbackKeys | None = None) -> bool:
        return await asyncio.to_thread(self._save, listing, keys)

    def _load(self) -> FallbackContent | None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self} cannot be read: {error.strerror}") from error
        return decode_fallback(content, str(self))

    def _save(self, listing: MirroredListing, keys: FallbackKeys | None) -> bool:
        try:
            kept = self._load()
        except RegistryError:
            kept = None
        if kept is not None and not _is_newer(listing, keys, kept):
            return False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Only its owner may read it: it tells where backends are. A crash leaves the old one whole.
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(encode_fallback(listing, keys))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise Unavailable(f"{self} cannot be written: {error.strerror}") from error
        return True


class CloudStorageFallback:
    """The fallback copy in a Cloud Storage object."""

    saved_by_gateways = False  # a hundred writers of one object would be in each other's way

    def __init__(self, bucket: str, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self._client: Any = None

    def __str__(self) -> str:
        return f"gs://{self._bucket}/{self._name}"

    async def load(self) -> FallbackContent | None:
        kept: FallbackContent | None = (await asyncio.to_thread(self._ask, self._load))[0]
        return kept

    async def save_if_newer(self, listing: MirroredListing, keys: FallbackKeys | None = None) -> bool:
        return bool(await asyncio.to_thread(self._ask, lambda: self._save(listing, keys)))

    def _blob(self) -> Any:
        if self._client is None:
            self._client = make_storage_client()
        return self._client.bucket(self._bucket).blob(self._name)

    def _ask(self, work: Callable[[], Any]) -> Any:
        """Do `work` in this thread; whatever Google's client raises becomes a RegistryError."""
        import google.auth.exceptions
        import requests
        from google.api_core import exceptions

        try:
            return work()
        except exceptions.Forbidden as error:
            raise RegistryError(f"no permission for the fallback {self}: {error.message}") from error
        except (
            exceptions.GoogleAPIError,
            google.auth.exceptions.GoogleAuthError,
            requests.RequestException,
        ) as error:
            raise Unavailable(f"the fallback {self} cannot be reached: {str(error)[:300]}") from error
        finally:
            client, self._client = self._client, None
            if client is not None:
                client.close()  # it is asked once in a start, or once in a command

    def _load(self) -> tuple[FallbackContent | None, int]:
        """What is kept, and the object's generation (0: there is none), so that it can be replaced if nobody else does."""
        from google.api_core import exceptions

        blob = self._blob()
        try:
            content = blob.download_as_bytes(timeout=_TIMEOUT_S, retry=None)
        except exceptions.NotFound:
            return None, 0
        return decode_fallback(content, str(self)), int(blob.generation)

    def _save(self, listing: MirroredListing, keys: FallbackKeys | None) -> bool:
        from google.api_core import exceptions

        content = encode_fallback(listing, keys)
        for _ in range(_ATTEMPTS):
            try:
                kept, generation = self._load()
            except _Damaged:
                kept, generation = None, None
            if kept is not None and not _is_newer(listing, keys, kept):
                return False
            try:
                self._blob().upload_from_string(
                    content,
                    content_type="application/gzip",
                    if_generation_match=generation,
                    timeout=6 * _TIMEOUT_S,
                    retry=None,
                )
            except exceptions.PreconditionFailed:
                continue  # another writer was quicker, perhaps with something newer
            return True
        raise Unavailable(f"too many others are writing {self}")


class _Damaged(RegistryError): ...


class _KeyLine(msgspec.Struct):
    digest: str
    key: msgspec.Raw


def _is_newer(listing: MirroredListing, keys: FallbackKeys | None, kept: FallbackContent) -> bool:
    if listing.registry_id != kept.listing.registry_id or listing.generation > kept.listing.generation:
        return True
    # Where keys have been turned on or off, the copy is rewritten for that alone.
    return listing.generation == kept.listing.generation and (keys is None) != (kept.keys is None)


def encode_fallback(listing: MirroredListing, keys: FallbackKeys | None = None) -> bytes:
    """Encode a fallback copy as bytes.

    The bytes are compressed. Encoding goes line by line, so that other threads can run between two of them.
    """
    if keys is not None and keys.registry_id != listing.registry_id:
        keys = None
    head = {
        "format": _FORMAT,
        "registry_id": listing.registry_id,
        "generation": listing.generation,
        "documents": len(listing.documents),
        "keys": len(keys.documents) if keys is not None else None,
        "keys_generation": keys.generation if keys is not None else None,
        "saved": time.time(),
    }
    encode_line = msgspec.json.encode
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [compressor.compress(encode_line(head) + b"\n")]
    parts += [compressor.compress(encode_line(document) + b"\n") for document in listing.documents]
    for digest, key in keys.documents.items() if keys is not None else ():
        parts.append(compressor.compress(encode_line(_KeyLine(digest, msgspec.Raw(key))) + b"\n"))
    return b"".join([*parts, compressor.flush()])


def decode_fallback(content: bytes, place: str) -> FallbackContent:
    """Decode a fallback copy. `place` names it in errors. Raises RegistryError."""
    try:
        first, *lines = gzip.decompress(content).splitlines()
        head = msgspec.json.decode(first, type=dict[str, Any])
        if head["format"] != _FORMAT:
            raise _Damaged(f"{place} was written by another release of CHIPS")
        count, keys = head["documents"], head.get("keys")
        if count + (keys or 0) != len(lines):
            raise _Damaged(f"{place} is incomplete")
        decoder = msgspec.json.Decoder(Document)
        listing = MirroredListing(
            registry_id=head["registry_id"],
            generation=head["generation"],
            documents=tuple(decoder.decode(line) for line in lines[:count]),
        )
        kept_keys = None
        if keys is not None:
            found = map(msgspec.json.Decoder(_KeyLine).decode, lines[count:])
            documents = {line.digest: bytes(line.key) for line in found}
            kept_keys = FallbackKeys(listing.registry_id, head["keys_generation"], documents)
        return FallbackContent(listing, time.time() - head["saved"], kept_keys)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"{place} is damaged or no fallback: {error}") from error
