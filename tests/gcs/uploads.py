"""Uploads: at once, multipart, and resumable (cloud.google.com/storage/docs/performing-resumable-uploads)."""

import email.parser
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.gcs.faults import Fault
from tests.gcs.objects import Object, StorageError, Store
from tests.gcs.preconditions import Conditions

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_BOUNDARY = re.compile(r'boundary="?([^";]+)')


@dataclass
class Session:
    bucket: str
    name: str
    resource: dict[str, Any]
    conditions: Conditions
    data: bytearray = field(default_factory=bytearray)


def conditions_of(request: web.Request) -> Conditions:
    return Conditions(request.method, dict(request.query), request.headers.copy())


class Uploads:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._sessions: dict[str, Session] = {}

    def put(
        self, bucket: str, name: str, data: bytes, resource: dict[str, Any], conditions: Conditions
    ) -> Object:
        target = self._store.bucket(bucket)
        conditions.check(target.live(name), writes=True)
        for part in filter(None, conditions.headers.get("x-goog-hash", "").split(",")):
            key, _, value = part.strip().partition("=")
            resource = {**resource, {"md5": "md5Hash", "crc32c": "crc32c"}[key]: value}
        return target.put(name, data, resource)

    def media(self, request: web.Request, bucket: str, body: bytes) -> Object:
        resource = {
            "contentType": request.headers.get("Content-Type"),
            "contentEncoding": request.query.get("contentEncoding"),
        }
        return self.put(bucket, request.query["name"], body, resource, conditions_of(request))

    def multipart(self, request: web.Request, bucket: str, body: bytes) -> Object:
        boundary = _BOUNDARY.search(request.headers["Content-Type"])
        if boundary is None:
            raise StorageError(400, "no boundary")
        parts = [part.lstrip(b"\r\n") for part in body.split(b"--" + boundary[1].encode())[1:3]]
        (_, described), (head, content) = (_split(part) for part in parts)
        resource = json.loads(described)
        resource.setdefault(
            "contentType", email.parser.BytesHeaderParser().parsebytes(head).get_content_type()
        )
        name = request.query.get("name") or resource["name"]
        return self.put(bucket, name, content, resource, conditions_of(request))

    def open(self, request: web.Request, bucket: str, resource: dict[str, Any]) -> str:
        """Begin a resumable upload; return its id."""
        name = request.query.get("name") or resource["name"]
        conditions = conditions_of(request)
        conditions.check(self._store.bucket(bucket).live(name), writes=True)
        resource.setdefault("contentType", request.headers.get("X-Upload-Content-Type"))
        identifier = secrets.token_hex(8)
        self._sessions[identifier] = Session(bucket, name, resource, conditions)
        return identifier

    async def go_on(self, request: web.Request, fault: Fault | None) -> Object | int | None:
        """Take a part of a resumable upload, or a question about it.

        Returns the object when it is complete, else how many bytes are here; None where the upload was cancelled.
        """
        identifier = request.query["upload_id"]
        session = self._sessions.get(identifier)
        if session is None:
            raise StorageError(404, "No such upload session")
        if request.method == "DELETE":
            del self._sessions[identifier]
            return None
        begin, total = _parse_range(request.headers.get("Content-Range"), len(session.data))
        if begin is not None:
            if begin > len(session.data):
                raise StorageError(503, "bytes are missing before this part")
            await self._receive(request, session, begin, fault)
        if total is None or len(session.data) < total:
            return len(session.data)
        del self._sessions[identifier]
        return self.put(
            session.bucket, session.name, bytes(session.data), session.resource, session.conditions
        )

    async def _receive(self, request: web.Request, session: Session, begin: int, fault: Fault | None) -> None:
        """Keep what arrives as it arrives: a connection that breaks loses nothing that was here."""
        skip = len(session.data) - begin  # sent again, although we have it
        limit = None if fault is None else fault.truncate
        received = 0
        async for block in request.content.iter_any():
            received += len(block)
            if skip >= len(block):
                skip -= len(block)
                continue
            session.data += block[skip:]
            skip = 0
            if fault is not None and fault.corrupt:
                session.data[-1] ^= 1
                fault.corrupt = False
            if limit is not None and received >= limit:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError


def _parse_range(header: str | None, here: int) -> tuple[int | None, int | None]:
    """Where the body of this request begins (None: it has none), and the total size where it is known."""
    if header is None:
        return here, 0  # everything in one request, however long it is
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        raise StorageError(400, "Content-Range")
    begin = None if match[1] is None else int(match[1])
    return begin, None if match[3] == "*" else int(match[3])


def _split(part: bytes) -> tuple[bytes, bytes]:
    head, _, body = part.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body.removesuffix(b"\r\n")
