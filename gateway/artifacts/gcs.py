"""Google Cloud Storage as artifact store.

Files go up by resumable sessions (cloud.google.com/storage/docs/performing-resumable-uploads) in chunks, so memory stays
flat, a broken connection costs one chunk, and an upload that was interrupted goes on in the next run.

What Cloud Storage then has is compared with what was read, by size and CRC32C: an object that differs is removed, and
no version ever names it.

A file's object is named by its content, `<version>/<sha256>/<path>`, so two people who publish one version at once never
write the same object, and the first manifest that is written has the files that it names.
"""

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import google.auth.exceptions
import google_crc32c
import msgspec
import requests
from google.api_core import exceptions

from gateway.artifacts.artifact_store_interface import (
    PermissionRefused,
    Progress,
    StoreError,
    StoreUnavailable,
    is_published,
)
from gateway.artifacts.manifest import MANIFEST_NAME, File, Manifest, parse_manifest
from gateway.core.per_process_random import random_between
from gateway.make_cloud_storage_client import make_storage_client

_CHUNK_BYTES: Final = 8 * 1024 * 1024  # a multiple of 256 KiB, as the protocol asks
_TIMEOUT_S: Final = 60.0
_ATTEMPTS: Final = 8  # without any progress
_AT_ONCE: Final = 4  # files
_NAMES: Final = "items(name),nextPageToken"
_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 30.0

Result = TypeVar("Result")


class GcsStore:
    """An artifact store in a Cloud Storage bucket. Interrupted uploads go on where they stopped."""

    def __init__(self, bucket: str, prefix: str, upload_state_folder: Path) -> None:
        self._bucket_name = bucket
        self._prefix = prefix
        self._sessions = _Sessions(upload_state_folder / "uploads")
        self._client: Any = None
        self._threads = threading.local()
        self._opened: list[requests.Session] = []

    def close(self) -> None:
        for session in self._opened:
            session.close()
        if self._client is not None:
            self._client.close()

    def address(self, model: str, version: str) -> str:
        return f"gs://{self._bucket_name}/{self._name(model, version, '')}"

    def manifest(self, model: str, version: str) -> Manifest | None:
        content = self.manifest_content(model, version)
        try:
            return None if content is None else parse_manifest(content)
        except ValueError as error:
            raise StoreError(f"{self.address(model, version)}: {error}") from error

    def manifest_content(self, model: str, version: str) -> bytes | None:
        blob = self._bucket.blob(self._name(model, version, MANIFEST_NAME))
        try:
            content: bytes = self._ask(blob.download_as_bytes)
        except exceptions.NotFound:
            return None
        return content

    def versions(self, model: str | None = None) -> list[tuple[str, str]]:
        root = self._prefix + "/" if self._prefix else ""
        prefix = f"{root}{model}/" if model else root
        names = self._ask(
            lambda: [blob.name for blob in self._bucket.list_blobs(prefix=prefix, fields=_NAMES)]
        )
        parts = [name.removeprefix(root).split("/") for name in names]
        return sorted((part[0], part[1]) for part in parts if len(part) == 3 and part[2] == MANIFEST_NAME)

    def unverified_file_blocks(self, manifest: Manifest, file: File) -> Iterator[bytes]:
        name = self._name(manifest.model, manifest.version, file.path)
        blob = self._existing(name)
        if blob is None:
            raise FileNotFoundError(name)
        # Each part is a request of its own, of this generation, and tried again by the library where that may help.
        with blob.open(
            "rb", chunk_size=_CHUNK_BYTES, raw_download=True, if_generation_match=blob.generation
        ) as stream:
            while block := self._ask(lambda: stream.read(_CHUNK_BYTES)):
                yield block

    def with_stored_paths(self, manifest: Manifest) -> Manifest:
        """The manifest with the paths under which the bucket keeps its files.

        Each begins with the file's digest, so a repeated upload never meets another file. A copied manifest has them already.
        """
        files = tuple(
            file
            if file.path.startswith(f"{file.sha256[:16]}/")
            else msgspec.structs.replace(file, path=f"{file.sha256[:16]}/{file.path}")
            for file in manifest.files
        )
        return msgspec.structs.replace(manifest, files=files)

    def publish(self, manifest: Manifest, files: Mapping[str, Path], progress: Progress) -> bool:
        sources = {file.sha256: files[file.path] for file in manifest.files}
        manifest = self.with_stored_paths(manifest)
        if is_published(self, manifest):
            return False
        self._put_all(manifest, sources, progress)
        blob = self._bucket.blob(self._name(manifest.model, manifest.version, MANIFEST_NAME))
        try:
            self._ask(
                lambda: blob.upload_from_string(
                    manifest.encode(), content_type="application/json", if_generation_match=0
                )
            )
        except exceptions.PreconditionFailed:
            # Somebody else was first, or our own first try had arrived after all.
            is_published(self, manifest)
            return False
        return True

    def _put_all(self, manifest: Manifest, sources: Mapping[str, Path], progress: Progress) -> None:
        """Bring the files up, some at a time: one connection seldom fills the line."""
        lock = threading.Lock()

        def told(count: int) -> None:
            with lock:
                progress(count)

        with ThreadPoolExecutor(min(_AT_ONCE, len(manifest.files) or 1)) as pool:
            name = partial(self._name, manifest.model, manifest.version)
            uploads = [
                pool.submit(self._put, name(file.path), file, sources[file.sha256], told)
                for file in manifest.files
            ]
            try:
                for upload in uploads:
                    upload.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _put(self, name: str, file: File, source: Path, progress: Progress) -> None:
        """Bring one file up, unless it is there. An object of that name that is not it is replaced."""
        existing = self._existing(name)
        if _may_be_it(existing, file) and _has(existing, _Sums().read(source), file):
            progress(file.bytes)
            return
        generation = existing.generation if existing is not None else 0
        sums = _Sums()
        try:
            session = self._sessions.load(name, file.sha256) or self._open_session(name, file, generation)
            try:
                self._send(session, file, source, progress, sums)
            except _SessionGone:
                self._send(self._open_session(name, file, generation), file, source, progress, sums)
        except exceptions.PreconditionFailed as error:
            # Somebody who publishes the same file at this moment was quicker.
            if not _has(self._existing(name), _Sums().read(source), file):
                raise StoreUnavailable(
                    f"somebody else is writing {name} at this moment; try again"
                ) from error
        else:
            self._check(name, file, source, sums)
        self._sessions.forget(name, file.sha256)

    def _check(self, name: str, file: File, source: Path, sums: "_Sums") -> None:
        """Compare what is stored now with what was read. What is not the file is removed again."""
        stored = self._existing(name)
        sums.read(source)
        if _has(stored, sums, file):
            return
        self._sessions.forget(name, file.sha256)
        if stored is not None:
            self._remove(stored)
        if sums.sha256 != file.sha256:
            raise StoreError(f"{source} changed while it was published; publish again when it is finished")
        raise StoreError(
            f"what Cloud Storage has of {file.path} is not what was sent "
            f"({_described(stored)} instead of {file.bytes} bytes with CRC32C {sums.crc32c}), so it was not published: "
            "run the same command again"
        )

    def _remove(self, blob: Any) -> None:
        try:
            self._ask(lambda: blob.delete(if_generation_match=blob.generation))
        except (exceptions.NotFound, exceptions.PreconditionFailed):
            return  # somebody has put another one in its place

    def _existing(self, name: str) -> Any:
        return self._ask(lambda: self._bucket.get_blob(name))

    def _open_session(self, name: str, file: File, generation: int) -> str:
        blob = self._bucket.blob(name)
        blob.metadata = {"sha256": file.sha256}
        session: str = self._ask(
            lambda: blob.create_resumable_upload_session(
                content_type="application/octet-stream", size=file.bytes, if_generation_match=generation
            )
        )
        self._sessions.save(name, file.sha256, session)
        return session

    def _send(self, session: str, file: File, source: Path, progress: Progress, sums: "_Sums") -> None:
        told = 0
        failures = 0
        offset: int | None = None  # unknown until the server says so
        with source.open("rb") as stream:
            while True:
                try:
                    if offset is None:
                        offset = self._offset(session, file.bytes)
                    if offset > told:
                        progress(offset - told)
                        told, failures = offset, 0
                    if offset >= file.bytes and file.bytes:
                        break
                    sums.take(stream, offset)
                    stream.seek(offset)
                    chunk = stream.read(_CHUNK_BYTES)
                    offset = self._send_chunk(session, chunk, offset, file.bytes)
                    if not file.bytes:
                        return
                except (requests.ConnectionError, requests.Timeout, _Later) as error:
                    failures += 1
                    if failures > _ATTEMPTS:
                        raise StoreUnavailable(
                            f"{file.path} cannot be uploaded now ({error}); run the same command again to go on from here"
                        ) from error
                    time.sleep(random_between(0, min(_FIRST_DELAY_S * 2**failures, _LONGEST_DELAY_S)))
                    offset = None

    def _offset(self, session: str, size: int) -> int:
        """How much of the file the server has."""
        answer = self._http.put(session, headers={"Content-Range": f"bytes */{size}"}, timeout=_TIMEOUT_S)
        return _received(answer, size)

    def _send_chunk(self, session: str, chunk: bytes, offset: int, size: int) -> int:
        span = f"{offset}-{offset + len(chunk) - 1}" if chunk else "*"
        answer = self._http.put(
            session, data=chunk, headers={"Content-Range": f"bytes {span}/{size}"}, timeout=_TIMEOUT_S
        )
        return _received(answer, size)

    def _name(self, model: str, version: str, path: str) -> str:
        return "/".join(part for part in (self._prefix, model, version) if part) + "/" + path

    @property
    def _http(self) -> requests.Session:
        """One for each thread. It needs no login: an upload session's address is its own credential."""
        session: requests.Session | None = getattr(self._threads, "http", None)
        if session is None:
            session = self._threads.http = requests.Session()
            self._opened.append(session)
        return session

    @property
    def _bucket(self) -> Any:
        if self._client is None:
            self._client = self._ask(make_storage_client)
        return self._client.bucket(self._bucket_name)

    def _ask(self, call: Callable[[], Result]) -> Result:
        """Do one call of the client library; its errors in our words, but for those that the caller looks for."""
        try:
            return call()
        except (exceptions.PreconditionFailed, exceptions.NotFound) as error:
            if isinstance(error, exceptions.NotFound) and "bucket" in str(error).lower().replace("/b/", ""):
                raise StoreError(f"there is no bucket {self._bucket_name}, or you may not see it") from error
            raise
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise PermissionRefused(
                f"no permission on gs://{self._bucket_name}/{self._prefix}: you need roles/storage.objectUser there"
            ) from error
        except google.auth.exceptions.GoogleAuthError as error:
            raise PermissionRefused(
                f"no credentials for Google Cloud: run `gcloud auth application-default login` ({error})"
            ) from error
        except (exceptions.GoogleAPICallError, exceptions.RetryError, requests.RequestException) as error:
            raise StoreUnavailable(f"gs://{self._bucket_name} does not answer: {error}") from error


def _may_be_it(existing: Any, file: File) -> bool:
    if existing is None:
        return False
    return existing.size == file.bytes and (existing.metadata or {}).get("sha256") == file.sha256


def _has(stored: Any, sums: "_Sums", file: File) -> bool:
    """Whether the object `stored` is `file`, of which `sums` are what was read here."""
    return _may_be_it(stored, file) and sums.sha256 == file.sha256 and stored.crc32c == sums.crc32c


def _described(stored: Any) -> str:
    return "nothing" if stored is None else f"{stored.size} bytes with CRC32C {stored.crc32c}"


class _Later(Exception):
    """The server asks to try again."""


class _SessionGone(Exception):
    """An upload session lives a week at most."""


def _received(answer: requests.Response, size: int) -> int:
    """The number of bytes the server has, by its answer to any PUT on a session."""
    if answer.status_code in {200, 201}:
        return size
    if answer.status_code == 308:
        stored = answer.headers.get("Range")  # bytes=0-N, both ends included
        return int(stored.rpartition("-")[2]) + 1 if stored else 0
    if answer.status_code in {404, 410, 499}:
        raise _SessionGone
    if answer.status_code == 412:
        raise exceptions.PreconditionFailed("written meanwhile")
    if answer.status_code in {408, 429} or answer.status_code >= 500:
        raise _Later(f"status {answer.status_code}")
    if answer.status_code in {401, 403}:
        raise PermissionRefused(f"the upload was refused with status {answer.status_code}")
    raise StoreError(f"the upload was refused with status {answer.status_code}: {answer.text[:200]}")


class _Sums:
    """What a file here holds, read from its beginning on: by SHA-256, as manifests say it, and CRC32C, as Cloud Storage does.

    MD5 would not do: an object that was put together of parts has none.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._crc32c: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        self._taken = 0

    def take(self, stream: IO[bytes], target: int) -> None:
        """Go on to `target` bytes of the file; an offset that goes back costs nothing."""
        stream.seek(self._taken)
        while self._taken < target:
            block = stream.read(min(1 << 20, target - self._taken))
            if not block:
                break
            self._sha256.update(block)
            self._crc32c.update(block)
            self._taken += len(block)

    def read(self, path: Path) -> "_Sums":
        """Go on to the end of the file."""
        with path.open("rb") as stream:
            self.take(stream, path.stat().st_size)
        return self

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc32c.digest()).decode()


class _Sessions:
    """The upload sessions that are under way, in small files, so that another run can go on with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: str, sha256: str) -> str | None:
        try:
            return msgspec.json.decode(self._path(name, sha256).read_bytes(), type=str)
        except (OSError, msgspec.MsgspecError):
            return None

    def save(self, name: str, sha256: str, session: str) -> None:
        path = self._path(name, sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # anybody with the address can write the object
        path.write_bytes(msgspec.json.encode(session))

    def forget(self, name: str, sha256: str) -> None:
        self._path(name, sha256).unlink(missing_ok=True)

    def _path(self, name: str, sha256: str) -> Path:
        return self._folder / (hashlib.sha256(f"{name}\n{sha256}".encode()).hexdigest()[:32] + ".json")
