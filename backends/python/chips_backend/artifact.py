"""Bring the artifact here: fetched once, checked byte for byte before any loader opens it, kept by its digest."""

import errno
import fcntl
import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from chips_backend.logs import Log
from chips_backend.manifest import File, Manifest, parse_manifest

_BLOCK_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 6  # without any progress
_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 10.0
_TIMEOUT_S: Final = 60.0
# Since 3.13 Google's library asks for the bucket's metadata in a thread of its own, for spans that nobody reads: one more
# request, which needs a permission of its own.
_NO_BUCKET_METADATA: Final = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # trying again does not help
_jitter = random.Random().uniform  # noqa: S311  (spreads retries)

# sysexits.h
EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_IOERR, EX_NOPERM = 65, 66, 69, 74, 77


class ArtifactError(Exception):
    """The artifact cannot be had, or is not what it should be. The text says which object, and what to do."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Artifact(NamedTuple):
    """An artifact on this machine: its folder, its manifest, and the digest and address that it was fetched by."""

    folder: Path
    manifest: Manifest
    digest: str  # sha256:… of the manifest, which holds those of all files
    address: str


class _Source(Protocol):
    address: str

    def manifest(self) -> bytes: ...

    def fetch(self, file: File, target: Path, progress: "_Progress") -> None:
        """Write `file` to `target`, completely and with the right digest, or raise ArtifactError."""


class Wanted(NamedTuple):
    """Which artifact it must be; None accepts any."""

    model: str | None = None
    version: str | None = None
    digest: str | None = None  # of the manifest, as `chips publish` prints it

    def check(self, manifest: Manifest, digest: str, address: str) -> None:
        wanted = (self.model or manifest.model, self.version or manifest.version)
        if wanted != (manifest.model, manifest.version):
            raise ArtifactError(
                f"{address} is {manifest.model}@{manifest.version}, but CHIPS_MODEL and CHIPS_VERSION say "
                f"{wanted[0]}@{wanted[1]}: correct one of them",
                EX_DATAERR,
            )
        if self.digest not in {None, digest}:
            raise ArtifactError(
                f"the manifest at {address} has the digest {digest}, but CHIPS_ARTIFACT_DIGEST says {self.digest}: "
                "it is not what was released, so nothing of it is loaded",
                EX_DATAERR,
            )


def obtain(address: str, cache_dir: Path, wanted: Wanted, log: Log) -> Artifact:
    """Return the artifact at `address` (gs://bucket/prefix/, file:// or a folder), every byte of it checked.

    Two processes may do this at once. Raises ArtifactError.
    """
    source = _open(address, log)
    content = source.manifest()
    try:
        manifest = parse_manifest(content)
    except ValueError as error:
        raise ArtifactError(f"{source.address}: {error}", EX_DATAERR) from None
    digest = hashlib.sha256(content).hexdigest()
    wanted.check(manifest, f"sha256:{digest}", source.address)
    if isinstance(source, _Folder) and source.is_laid_out(manifest):
        for file in manifest.files:
            source.check(file, source.path / file.place)
        return Artifact(source.path, manifest, f"sha256:{digest}", source.address)
    folder = cache_dir / manifest.model / digest
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock")):
            if not _is_whole(folder, manifest):
                _fetch_all(source, manifest, folder, log)
    except OSError as error:
        raise _disk_error(error, cache_dir) from error
    return Artifact(folder, manifest, f"sha256:{digest}", source.address)


def _open(address: str, log: Log) -> "_Folder | _Bucket":
    if address.startswith("gs://"):  # not as a URL: a number sign is part of an object's name
        bucket, _, prefix = address.removeprefix("gs://").partition("/")
        if bucket:
            return _Bucket(bucket, prefix.strip("/"), log)
    parts = urlsplit(address)
    if parts.scheme in {"", "file"}:
        return _Folder(Path(unquote(parts.path) if parts.scheme else address))
    raise ArtifactError(f"CHIPS_ARTIFACT={address}: use gs://bucket/prefix/, file:// or a folder", EX_NOINPUT)


def _is_whole(folder: Path, manifest: Manifest) -> bool:
    """Whether the cache holds every file as it should be. Looked at each start: a pickle is code."""
    if not folder.is_dir():
        return False
    if all(_digest_of(folder / file.place) == file.sha256 for file in manifest.files):
        return True
    shutil.rmtree(folder)
    return False


def _fetch_all(source: _Source, manifest: Manifest, folder: Path, log: Log) -> None:
    draft = folder.parent / f".{folder.name}.{uuid4().hex}"
    _remove_leftovers(folder)
    progress = _Progress(sum(file.bytes for file in manifest.files), log)
    try:
        for file in manifest.files:
            target = draft / file.place
            target.parent.mkdir(parents=True, exist_ok=True)
            source.fetch(file, target, progress)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Drafts of processes that were killed; we hold the lock, so nobody is at work on one."""
    for draft in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # let go by the system, whatever becomes of us
        yield


def _digest_of(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def _mismatch(where: str, file: File) -> ArtifactError:
    return ArtifactError(
        f"{where} is not the file that was published: its SHA-256 is not {file.sha256[:12]}… as the manifest says. "
        "It is not loaded. Publish the model again under a new version.",
        EX_DATAERR,
    )


def _disk_error(error: OSError, cache_dir: Path) -> ArtifactError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ArtifactError(
            f"the disk with {cache_dir} is full: give it more room (on Cloud Run the disk is memory) "
            "or name another folder in CHIPS_CACHE_DIR",
            EX_IOERR,
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return ArtifactError(
            f"no permission to write {cache_dir}: name another folder in CHIPS_CACHE_DIR", EX_NOPERM
        )
    return ArtifactError(f"{cache_dir} cannot be used: {error}", EX_IOERR)


class _Progress:
    """One log line each ten percent."""

    def __init__(self, total: int, log: Log) -> None:
        self._total = max(total, 1)
        self._log = log
        self._done = 0

    def add(self, count: int) -> None:
        before = self._done * 10 // self._total
        self._done += count
        now = self._done * 10 // self._total
        if now > before:
            self._log.info(f"fetched {now * 10} % of the artifact", fetched_bytes=self._done)


class _Folder:
    """An artifact in a folder of this machine: used where it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)

    def manifest(self) -> bytes:
        path = self.path / "manifest.json"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise ArtifactError(
                f"there is no {path}: is CHIPS_ARTIFACT right, and has the version been published?",
                EX_NOINPUT,
            ) from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}", EX_NOPERM) from None

    def is_laid_out(self, manifest: Manifest) -> bool:
        """Whether the files lie as the model wants them; not so where a bucket was copied as it was (KServe does)."""
        return all(file.place == file.path or (self.path / file.place).is_file() for file in manifest.files)

    def fetch(self, file: File, target: Path, progress: "_Progress") -> None:
        path = self.path / file.path
        self.check(file, path)
        target.symlink_to(path.absolute())
        progress.add(file.bytes)

    def check(self, file: File, path: Path) -> None:
        try:
            digest = _digest_of(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}", EX_NOPERM) from None
        if digest is None:
            raise ArtifactError(
                f"{path} is missing, though the manifest lists it: publish the model again", EX_NOINPUT
            )
        if digest != file.sha256:
            raise _mismatch(str(path), file)


class _Bucket:
    """An artifact in Cloud Storage, by Google's client. STORAGE_EMULATOR_HOST is honored by that."""

    def __init__(self, bucket: str, prefix: str, log: Log) -> None:
        self.address = f"gs://{bucket}/{prefix}/"
        self._bucket_name = bucket
        self._prefix = prefix
        self._log = log
        self._bucket_: Any = None

    @property
    def _bucket(self) -> Any:
        if self._bucket_ is None:
            from google.auth.exceptions import DefaultCredentialsError
            from google.cloud import storage

            try:
                os.environ.setdefault(_NO_BUCKET_METADATA, "true")
                self._bucket_ = storage.Client().bucket(self._bucket_name)
            except DefaultCredentialsError as error:
                raise ArtifactError(
                    f"no credentials for Google Cloud, so {self.address} cannot be read: {error}", EX_NOPERM
                ) from None
        return self._bucket_

    def manifest(self) -> bytes:
        blob = self._bucket.blob(f"{self._prefix}/manifest.json")
        content: bytes = self._patiently(
            "manifest.json", lambda: blob.download_as_bytes(retry=None, timeout=_TIMEOUT_S)
        )
        return content

    def fetch(self, file: File, target: Path, progress: _Progress) -> None:
        blob = self._bucket.blob(f"{self._prefix}/{file.path}")
        self._patiently(file.path, lambda: blob.reload(retry=None, timeout=_TIMEOUT_S))
        if blob.size != file.bytes:
            raise _mismatch(self.address + file.path, file)
        with target.open("xb") as stream:
            sink = _Sink(stream, file.bytes, progress)

            def more() -> None:
                # From where the last try broke off, of the very same object: another generation would not fit.
                if sink.size < file.bytes:
                    blob.download_to_file(
                        sink,
                        start=sink.size,
                        raw_download=True,
                        checksum=None,  # of the whole, by SHA-256, below
                        if_generation_match=blob.generation,
                        retry=None,
                        timeout=_TIMEOUT_S,
                    )
                if sink.size < file.bytes:
                    raise ConnectionError("the answer ended early")

            self._patiently(file.path, more, progress=lambda: sink.size)
            stream.flush()
            os.fsync(stream.fileno())
        if sink.digest.hexdigest() != file.sha256 or sink.size != file.bytes:
            target.unlink()
            raise _mismatch(self.address + file.path, file)

    def _patiently(self, name: str, call: Any, progress: Any = lambda: 0) -> Any:
        """Do `call`, again and again where that may help, with full jitter; its last error in our words."""
        import requests
        import urllib3
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError, TransportError

        broken = (requests.RequestException, urllib3.exceptions.HTTPError, TransportError, OSError)
        failures, last = 0, progress()
        while True:
            try:
                return call()
            except GoogleAPICallError as error:
                if error.code not in {408, 429} and not (error.code or 0) >= 500:
                    raise self._refused(name, error.code or 0) from None
                cause: Exception = error
            except broken as error:
                if isinstance(error, OSError) and error.errno in _DISK:
                    raise
                cause = error
            except GoogleAuthError as error:
                raise self._refused(name, 401, f": {error}") from None
            failures = 1 if progress() > last else failures + 1
            last = progress()
            if failures >= _ATTEMPTS:
                raise ArtifactError(
                    f"{self.address}{name} cannot be fetched now: {cause}", EX_UNAVAILABLE
                ) from cause
            self._log.warning(f"fetching {name} failed and is tried again: {type(cause).__name__}")
            time.sleep(_jitter(0, min(_FIRST_DELAY_S * 2**failures, _LONGEST_DELAY_S)))

    def _refused(self, name: str, status: int, why: str = "") -> ArtifactError:
        where = f"{self.address}{name}"
        if status == 404:
            return ArtifactError(
                f"{where} is not there: is CHIPS_ARTIFACT right, and has the version been published?",
                EX_NOINPUT,
            )
        if status == 412:
            return ArtifactError(f"{where} was replaced while it was fetched: start again", EX_DATAERR)
        if status in {401, 403}:
            return ArtifactError(
                f"no permission to read {where}: give this service's account roles/storage.objectViewer on the bucket "
                f"(status {status}{why})",
                EX_NOPERM,
            )
        return ArtifactError(f"{where} was refused with status {status}", EX_UNAVAILABLE)


class _Sink:
    """Takes a download: writes, hashes, counts, and refuses more than was announced."""

    def __init__(self, stream: IO[bytes], limit: int, progress: _Progress) -> None:
        self._stream = stream
        self._limit = limit
        self._progress = progress
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, block: bytes) -> int:
        if self.size + len(block) > self._limit:
            raise ArtifactError(
                "an object is larger than its manifest says: publish the model again", EX_DATAERR
            )
        self._stream.write(block)
        self.digest.update(block)
        self.size += len(block)
        self._progress.add(len(block))
        return len(block)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._stream.flush()
