"""Buckets and objects in memory, with generations."""

import base64
import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import google_crc32c


class StorageError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def no_such_object(bucket: str, name: str) -> StorageError:
    return StorageError(404, f"No such object: {bucket}/{name}")


@dataclass
class Object:
    bucket: str
    name: str
    data: bytes
    generation: int
    content_type: str = "application/octet-stream"
    content_encoding: str | None = None
    cache_control: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    metageneration: int = 1
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.updated = self.created
        self.md5 = hashlib.md5(self.data, usedforsecurity=False).digest()
        self.crc32c = google_crc32c.Checksum(self.data).digest()

    @property
    def etag(self) -> str:
        """The JSON API's: it changes with the metadata too."""
        return base64.b64encode(b"%d/%d" % (self.generation, self.metageneration)).decode()

    def resource(self, base: str) -> dict[str, Any]:
        """cloud.google.com/storage/docs/json_api/v1/objects#resource"""
        path = f"{self.bucket}/o/{quote(self.name, safe='')}"
        resource: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{base}/storage/v1/b/{path}",
            "mediaLink": f"{base}/download/storage/v1/b/{path}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": self.content_type,
            "storageClass": "STANDARD",
            "size": str(len(self.data)),
            "md5Hash": base64.b64encode(self.md5).decode(),
            "crc32c": base64.b64encode(self.crc32c).decode(),
            "etag": self.etag,
            "timeCreated": stamp(self.created),
            "updated": stamp(self.updated),
        }
        optional = {
            "contentEncoding": self.content_encoding,
            "cacheControl": self.cache_control,
            "metadata": self.metadata or None,
        }
        return resource | {name: value for name, value in optional.items() if value is not None}

    def patch(self, changes: dict[str, Any]) -> None:
        if "metadata" in changes:
            given = changes["metadata"] or {}
            kept = {} if changes["metadata"] is None else self.metadata | given
            self.metadata = {name: value for name, value in kept.items() if value is not None}
        self.content_type = changes.get("contentType") or self.content_type
        self.cache_control = changes.get("cacheControl", self.cache_control)
        self.metageneration += 1
        self.updated = datetime.now(UTC)


@dataclass
class Bucket:
    name: str
    versioning: bool = False
    versions: dict[str, list[Object]] = field(default_factory=dict)  # oldest first
    deleted: set[str] = field(default_factory=set)  # names whose live version is gone, with versioning
    metageneration: int = 1
    retention_s: int | None = None  # younger objects can be neither deleted nor replaced
    retention_locked: bool = False

    def live(self, name: str) -> Object | None:
        versions = self.versions.get(name)
        return versions[-1] if versions and name not in self.deleted else None

    def find(self, name: str, generation: int | None = None) -> Object:
        if generation is None:
            found = self.live(name)
        else:
            found = next((o for o in self.versions.get(name, ()) if o.generation == generation), None)
        if found is None:
            raise no_such_object(self.name, name)
        return found

    def put(self, name: str, data: bytes, resource: dict[str, Any]) -> Object:
        """Store `data`; `resource` is what the uploader says of it, checksums to verify included."""
        versions = self.versions.setdefault(name, [])
        generation = max(time.time_ns() // 1000, versions[-1].generation + 1 if versions else 0)
        new = Object(
            self.name,
            name,
            data,
            generation,
            content_type=resource.get("contentType") or "application/octet-stream",
            content_encoding=resource.get("contentEncoding"),
            cache_control=resource.get("cacheControl"),
            metadata=dict(resource.get("metadata") or {}),
        )
        for key, actual in (("md5Hash", new.md5), ("crc32c", new.crc32c)):
            claimed = resource.get(key)
            if claimed and claimed != base64.b64encode(actual).decode():
                raise StorageError(400, f'Provided {key} "{claimed}" doesn\'t match the data')
        if not self.versioning:
            for replaced in versions:
                self._check_retention(replaced)
            versions.clear()
        versions.append(new)
        self.deleted.discard(name)
        return new

    def delete(self, target: Object, *, whole_version: bool) -> None:
        if self.versioning and not whole_version:
            self.deleted.add(target.name)
            return
        self._check_retention(target)
        self.versions[target.name].remove(target)
        if not self.versions[target.name]:
            del self.versions[target.name]

    def _check_retention(self, target: Object) -> None:
        """cloud.google.com/storage/docs/bucket-lock"""
        age = (datetime.now(UTC) - target.created).total_seconds()
        if self.retention_s is not None and age < self.retention_s:
            raise StorageError(
                403,
                f"Object '{self.name}/{target.name}' is subject to bucket's retention policy or object retention and "
                "cannot be deleted or overwritten until the retention period has passed",
            )

    def patch(self, changes: dict[str, Any]) -> None:
        """Only what the tests change: the retention policy."""
        if "retentionPolicy" in changes:
            policy = changes["retentionPolicy"]
            period = None if policy is None else int(policy["retentionPeriod"])
            if self.retention_locked and (period is None or period < (self.retention_s or 0)):
                raise StorageError(
                    403, "Cannot reduce retention duration of a locked Retention Policy for bucket"
                )
            self.retention_s = period
        self.metageneration += 1

    def lock_retention(self) -> None:
        if self.retention_s is None:
            raise StorageError(400, "Bucket has no retention policy")
        self.retention_locked = True
        self.metageneration += 1

    def resource(self) -> dict[str, Any]:
        policy: dict[str, Any] | None = None
        if self.retention_s is not None:
            policy = {"retentionPeriod": str(self.retention_s), "effectiveTime": "2026-01-01T00:00:00Z"}
            policy |= {"isLocked": True} if self.retention_locked else {}
        return {
            **({"retentionPolicy": policy} if policy else {}),
            "kind": "storage#bucket",
            "id": self.name,
            "name": self.name,
            "location": "US",
            "storageClass": "STANDARD",
            "metageneration": str(self.metageneration),
            "etag": "CAE=",
            "versioning": {"enabled": self.versioning},
        }


class Store:
    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    def create(self, name: str, *, versioning: bool = False) -> Bucket:
        if name in self._buckets:
            raise StorageError(
                409, "Your previous request to create the named bucket succeeded and you already own it."
            )
        self._buckets[name] = Bucket(name, versioning)
        return self._buckets[name]

    def bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            raise StorageError(404, "The specified bucket does not exist.")
        return self._buckets[name]

    def delete(self, name: str) -> None:
        if self.bucket(name).versions:
            raise StorageError(409, "The bucket you tried to delete is not empty.")
        del self._buckets[name]

    def list(self) -> list[Bucket]:
        return list(self._buckets.values())


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
