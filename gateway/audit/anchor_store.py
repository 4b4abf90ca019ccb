"""A store for anchors: signed heads of the registry's history.

It is a folder, or a bucket with a locked retention policy. It is apart from the registry: the setting
`audit.second_place` names it. What is there is only ever created. A bucket holds that against everybody when its
retention policy is locked; a folder holds it as well as its owner does.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from gateway.make_cloud_storage_client import make_storage_client
from gateway.registry.base import RegistryError, Unavailable

_TIMEOUT_S: Final = 20.0  # of one attempt
_RETRY_S: Final = 20.0  # for all of them: a command waits for it
_AT_ONCE: Final = 16

Result = TypeVar("Result")


class AnchorStore(Protocol):
    """The interface of a store of anchors.

    They are small files that are created once. Raises RegistryError; Unavailable where it may pass.
    """

    async def read_all(self) -> dict[str, bytes]:
        """Read every anchor, by file name."""

    async def create(self, name: str, content: bytes) -> bool:
        """Create an anchor. False where there is one of that name."""

    async def retention_concerns(self) -> tuple[str, ...]:
        """Reasons why anchors may not stay in the store. One is a retention policy that is not locked."""


def open_anchor_store(url: str) -> AnchorStore:
    """Open the anchor store at a URL.

    The URL is `gs://bucket/prefix`, `file:/folder` or a folder. ValueError says what is wrong with the URL.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("the second place takes no options: write gs://bucket/prefix or a folder")
    if parts.scheme == "gs":
        if not parts.netloc:
            raise ValueError(f"{url} names no bucket: write gs://bucket/prefix")
        return BucketAnchorStore(parts.netloc, parts.path.strip("/"))
    if parts.scheme in {"", "file"} and not parts.netloc and parts.path:
        return FolderAnchorStore(Path(unquote(parts.path) if parts.scheme else url).absolute())
    raise ValueError(f"{url[:200]!r} is no second place: write gs://bucket/prefix or a folder")


class FolderAnchorStore:
    """An anchor store in a folder. Best is one that somebody else owns, or a checkout whose commits are pushed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    async def read_all(self) -> dict[str, bytes]:
        return await asyncio.to_thread(self._read)

    async def create(self, name: str, content: bytes) -> bool:
        return await asyncio.to_thread(self._create, name, content)

    async def retention_concerns(self) -> tuple[str, ...]:
        return ()

    def _read(self) -> dict[str, bytes]:
        try:
            return {
                path.relative_to(self._folder).as_posix(): path.read_bytes()
                for path in sorted(self._folder.glob("*/*.json"))
            }
        except OSError as error:
            raise Unavailable(f"{self} cannot be read: {error.strerror}") from error

    def _create(self, name: str, content: bytes) -> bool:
        path = self._folder / name
        new = path.with_name(f".{uuid4().hex}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(new, path)  # whole or not at all, and never over another one
        except FileExistsError:
            return False
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                new.unlink()
        return True


class BucketAnchorStore:
    """An anchor store in a bucket of Cloud Storage, under a prefix."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket_name = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def __str__(self) -> str:
        return f"gs://{self._bucket_name}/{self._prefix}".rstrip("/")

    async def read_all(self) -> dict[str, bytes]:
        return await asyncio.to_thread(self._ask, self._read)

    async def create(self, name: str, content: bytes) -> bool:
        return await asyncio.to_thread(self._ask, lambda client: self._create(client, name, content))

    async def retention_concerns(self) -> tuple[str, ...]:
        return await asyncio.to_thread(self._ask, self._concerns)

    def _read(self, client: Any) -> dict[str, bytes]:
        def download(blob: Any) -> tuple[str, bytes]:
            content: bytes = blob.download_as_bytes(timeout=_TIMEOUT_S, retry=_retry())
            return blob.name.removeprefix(self._prefix), content

        found = client.list_blobs(self._bucket_name, prefix=self._prefix, timeout=_TIMEOUT_S, retry=_retry())
        blobs = [blob for blob in found if blob.name.endswith(".json")]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="second place") as pool:
            return dict(pool.map(download, blobs))

    def _create(self, client: Any, name: str, content: bytes) -> bool:
        from google.api_core import exceptions

        blob = client.bucket(self._bucket_name).blob(self._prefix + name)
        try:
            blob.upload_from_string(
                content,
                content_type="application/json",
                if_generation_match=0,
                timeout=_TIMEOUT_S,
                retry=_retry(),
            )
        except exceptions.PreconditionFailed:
            return False
        return True

    def _concerns(self, client: Any) -> tuple[str, ...]:
        from google.api_core import exceptions

        try:
            bucket = client.get_bucket(self._bucket_name, timeout=_TIMEOUT_S, retry=_retry())
        except exceptions.Forbidden:
            return (f"whether {self} has a locked retention policy is not known: no permission to look",)
        if not bucket.retention_period:
            return (f"{self} has no retention policy: everybody who may write there may also delete there",)
        if not bucket.retention_policy_locked:
            return (f"the retention policy of {self} is not locked: its owner may take it away",)
        return ()

    def _ask(self, work: Callable[[Any], Result]) -> Result:
        """Do `work` with a client; what Google's library raises becomes a RegistryError."""
        import google.auth.exceptions
        import requests
        from google.api_core import exceptions

        client = None
        try:
            client = make_storage_client()
            return work(client)
        except (exceptions.Forbidden, exceptions.NotFound) as error:
            raise RegistryError(
                f"no permission for {self}, or it is not there: {error.message} Writers need "
                "roles/storage.objectCreator, auditors roles/storage.objectViewer."
            ) from error
        except (
            exceptions.GoogleAPIError,
            google.auth.exceptions.GoogleAuthError,
            requests.RequestException,
        ) as error:
            raise Unavailable(f"{self} cannot be reached: {str(error)[:300]}") from error
        finally:
            if client is not None:
                client.close()


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_RETRY_S)
