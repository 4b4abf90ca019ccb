"""The routes of the JSON API, the XML API, and of the test's own controls under /_."""

import asyncio
import base64
import json
import re
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

from tests.gcs import downloads
from tests.gcs.faults import Fault, Faults
from tests.gcs.objects import Bucket, Object, StorageError, Store
from tests.gcs.uploads import Uploads, conditions_of

_JSON_PREFIXES = ("/storage/", "/upload/", "/download/", "/b/", "/batch")
_REASONS = {404: "notFound", 409: "conflict", 412: "conditionNotMet", 403: "forbidden", 401: "required"}
_XML_CODES = {404: "NoSuchKey", 412: "PreconditionFailed", 403: "AccessDenied"}
_MAX_BODY_BYTES = 4 << 30


class CloudStorage:
    """One server; `store` is its memory."""

    def __init__(self) -> None:
        self.store = Store()
        self._uploads = Uploads(self.store)
        self._faults = Faults()
        self._requests: list[dict[str, str]] = []

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._around], client_max_size=_MAX_BODY_BYTES)
        bucket, object_ = "/storage/v1/b/{bucket}", "/storage/v1/b/{bucket}/o/{object:.+}"
        app.add_routes(
            [
                web.post("/_faults", self._plan_fault),
                web.delete("/_faults", self._clear_faults),
                web.get("/_requests", self._list_requests),
                web.delete("/_requests", self._clear_requests),
                web.post("/storage/v1/b", self._create_bucket),
                web.get("/storage/v1/b", self._list_buckets),
                web.get(bucket, self._get_bucket),
                web.delete(bucket, self._delete_bucket),
                web.patch(bucket, self._patch_bucket),
                web.post(bucket + "/lockRetentionPolicy", self._lock_retention),
                web.get(bucket + "/o", self._list_objects),
                web.post("/batch/storage/v1", self._batch),
                web.post(bucket + "/o/{object:.+}/copyTo/b/{bucket2}/o/{object2:.+}", self._copy),
                web.post(bucket + "/o/{object:.+}/rewriteTo/b/{bucket2}/o/{object2:.+}", self._rewrite),
                web.post(bucket + "/o/{object:.+}/compose", self._compose),
                web.get(object_, self._get_object),
                web.patch(object_, self._patch_object),
                web.delete(object_, self._delete_object),
                web.get("/download" + object_, self._get_object),
                web.post("/upload/storage/v1/b/{bucket}/o", self._upload),
                web.put("/upload/storage/v1/b/{bucket}/o", self._upload),
                web.delete("/upload/storage/v1/b/{bucket}/o", self._upload),
                web.get("/{bucket}", self._xml_list),
                web.get("/{bucket}/{object:.+}", self._xml_get),
                web.put("/{bucket}/{object:.+}", self._xml_put),
                web.delete("/{bucket}/{object:.+}", self._xml_delete),
            ]
        )
        return app

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        fault: Fault | None = None
        if not request.path.startswith("/_"):
            self._requests.append({"method": request.method, "path": request.path_qs})
            fault = self._faults.take(request.method, request.path_qs)
        request["fault"] = fault
        try:
            if fault is not None:
                await self._suffer(request, fault)
            answered: web.StreamResponse = await handler(request)
            return answered
        except StorageError as error:
            return _error(request, error)

    @staticmethod
    async def _suffer(request: web.Request, fault: Fault) -> None:
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.reset and request.transport is not None:
            request.transport.abort()
            raise ConnectionResetError
        if fault.status is not None:
            raise StorageError(fault.status, "planned by the test")

    # -- controls

    async def _plan_fault(self, request: web.Request) -> web.Response:
        self._faults.plan(await request.json())
        return web.Response(status=204)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._faults.clear()
        return web.Response(status=204)

    async def _list_requests(self, _: web.Request) -> web.Response:
        return web.json_response(self._requests)

    async def _clear_requests(self, _: web.Request) -> web.Response:
        self._requests.clear()
        return web.Response(status=204)

    # -- buckets

    async def _create_bucket(self, request: web.Request) -> web.Response:
        content = await request.json()
        versioning = bool((content.get("versioning") or {}).get("enabled"))
        return web.json_response(self.store.create(content["name"], versioning=versioning).resource())

    async def _list_buckets(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"kind": "storage#buckets", "items": [b.resource() for b in self.store.list()]}
        )

    async def _get_bucket(self, request: web.Request) -> web.Response:
        return web.json_response(self._bucket(request).resource())

    async def _delete_bucket(self, request: web.Request) -> web.Response:
        self.store.delete(request.match_info["bucket"])
        return web.Response(status=204)

    async def _patch_bucket(self, request: web.Request) -> web.Response:
        bucket = self._bucket(request)
        bucket.patch(await request.json())
        return web.json_response(bucket.resource())

    async def _lock_retention(self, request: web.Request) -> web.Response:
        bucket = self._bucket(request)
        if request.query.get("ifMetagenerationMatch") != str(bucket.metageneration):
            raise StorageError(412, "At least one of the pre-conditions you specified did not hold.")
        bucket.lock_retention()
        return web.json_response(bucket.resource())

    # -- objects, JSON API

    async def _get_object(self, request: web.Request) -> web.StreamResponse:
        found = self._object(request)
        conditions_of(request).check(found)
        if request.query.get("alt") == "media" or request.path.startswith("/download"):
            return await downloads.send(request, found, request["fault"])
        return web.json_response(found.resource(_base(request)))

    async def _patch_object(self, request: web.Request) -> web.Response:
        found = self._object(request)
        conditions_of(request).check(found, writes=True)
        found.patch(await request.json())
        return web.json_response(found.resource(_base(request)))

    async def _delete_object(self, request: web.Request) -> web.Response:
        self._delete(request)
        return web.Response(status=204)

    def _delete(self, request: web.Request) -> None:
        found = self._object(request)
        conditions_of(request).check(found, writes=True)
        self._bucket(request).delete(found, whole_version="generation" in request.query)

    async def _upload(self, request: web.Request) -> web.Response:
        bucket, base = request.match_info["bucket"], _base(request)
        self.store.bucket(bucket)
        if "upload_id" in request.query:
            return await self._resume(request)
        kind = request.query.get("uploadType")
        if kind == "resumable":
            resource = await request.json() if request.can_read_body else {}
            identifier = self._uploads.open(request, bucket, resource)
            location = f"{base}{request.path}?uploadType=resumable&upload_id={identifier}"
            return web.Response(headers={"Location": location, "X-GUploader-UploadID": identifier})
        take = {"media": self._uploads.media, "multipart": self._uploads.multipart}.get(kind or "")
        if take is None:
            raise StorageError(400, "uploadType")
        return web.json_response(take(request, bucket, await request.read()).resource(base))

    async def _resume(self, request: web.Request) -> web.Response:
        result = await self._uploads.go_on(request, request["fault"])
        if isinstance(result, Object):
            return web.json_response(result.resource(_base(request)))
        if result is None:
            return web.Response(status=499)
        return web.Response(status=308, headers={"Range": f"bytes=0-{result - 1}"} if result else {})

    def _copied(self, request: web.Request, changes: dict[str, Any]) -> Object:
        source = self._bucket(request).find(
            request.match_info["object"], _number(request, "sourceGeneration")
        )
        resource = {
            "contentType": source.content_type,
            "contentEncoding": source.content_encoding,
            "metadata": source.metadata,
            **{name: value for name, value in changes.items() if name in {"contentType", "metadata"}},
        }
        bucket, name = request.match_info["bucket2"], request.match_info["object2"]
        return self._uploads.put(bucket, name, source.data, resource, conditions_of(request))

    async def _copy(self, request: web.Request) -> web.Response:
        copied = self._copied(request, await _json_or_nothing(request))
        return web.json_response(copied.resource(_base(request)))

    async def _rewrite(self, request: web.Request) -> web.Response:
        copied = self._copied(request, await _json_or_nothing(request))
        size = str(len(copied.data))
        return web.json_response(
            {
                "kind": "storage#rewriteResponse",
                "done": True,
                "objectSize": size,
                "totalBytesRewritten": size,
                "resource": copied.resource(_base(request)),
            }
        )

    async def _compose(self, request: web.Request) -> web.Response:
        content = await request.json()
        bucket = self._bucket(request)
        sources = [bucket.find(part["name"], part.get("generation")) for part in content["sourceObjects"]]
        composed = self._uploads.put(
            bucket.name,
            request.match_info["object"],
            b"".join(source.data for source in sources),
            content.get("destination") or {},
            conditions_of(request),
        )
        return web.json_response(composed.resource(_base(request)))

    async def _list_objects(self, request: web.Request) -> web.Response:
        objects, prefixes, token = _page(self._bucket(request), request, "maxResults", "pageToken")
        listing: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [found.resource(_base(request)) for found in objects],
        }
        if prefixes:
            listing["prefixes"] = prefixes
        if token is not None:
            listing["nextPageToken"] = token
        return web.json_response(listing)

    async def _batch(self, request: web.Request) -> web.Response:
        """Deletions only: what a client batches in practice."""
        body = (await request.read()).decode()
        answers = []
        for match in re.finditer(r"DELETE \S*/storage/v1/b/([^/]+)/o/([^?\s]+)\S* HTTP", body):
            try:
                bucket = self.store.bucket(match[1])
                bucket.delete(bucket.find(unquote(match[2])), whole_version=False)
                answers.append("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
            except StorageError as error:
                answers.append(f"HTTP/1.1 {error.status} Error\r\nContent-Length: 2\r\n\r\n{{}}")
        parts = [f"--batch\r\nContent-Type: application/http\r\n\r\n{answer}\r\n" for answer in answers]
        return web.Response(
            body="".join([*parts, "--batch--"]), headers={"Content-Type": 'multipart/mixed; boundary="batch"'}
        )

    # -- XML API

    async def _xml_get(self, request: web.Request) -> web.StreamResponse:
        found = self._object(request)
        conditions_of(request).check(found)
        return await downloads.send(request, found, request["fault"])

    async def _xml_put(self, request: web.Request) -> web.Response:
        name, resource = request.match_info["object"], {"contentType": request.headers.get("Content-Type")}
        bucket = request.match_info["bucket"]
        put = self._uploads.put(bucket, name, await request.read(), resource, conditions_of(request))
        return web.Response(headers={"ETag": f'"{put.md5.hex()}"', "x-goog-generation": str(put.generation)})

    async def _xml_delete(self, request: web.Request) -> web.Response:
        self._delete(request)
        return web.Response(status=204)

    async def _xml_list(self, request: web.Request) -> web.Response:
        bucket = self._bucket(request)
        objects, prefixes, token = _page(bucket, request, "max-keys", "continuation-token")
        contents = "".join(
            f"<Contents><Key>{escape(o.name)}</Key><Size>{len(o.data)}</Size></Contents>" for o in objects
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in prefixes)
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token is not None else ""
        return web.Response(
            text=f"<ListBucketResult><Name>{bucket.name}</Name>{contents}{common}{more}</ListBucketResult>",
            content_type="application/xml",
        )

    def _bucket(self, request: web.Request) -> Bucket:
        return self.store.bucket(request.match_info["bucket"])

    def _object(self, request: web.Request) -> Object:
        return self._bucket(request).find(request.match_info["object"], _number(request, "generation"))


def _page(
    bucket: Bucket, request: web.Request, limit_name: str, token_name: str
) -> tuple[list[Object], list[str], str | None]:
    """One page of a listing: objects, common prefixes, and the token of the next page."""
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    start, end = query.get("startOffset", ""), query.get("endOffset", "")
    entries: list[tuple[str, Object | None]] = []
    for name in sorted(bucket.versions):
        if not name.startswith(prefix) or name < start or (end and name >= end):
            continue
        below = name[len(prefix) :]
        if delimiter and delimiter in below:
            common = prefix + below.split(delimiter)[0] + delimiter
            if not entries or entries[-1][0] != common:
                entries.append((common, None))
        elif query.get("versions") == "true":
            entries += [(name, version) for version in bucket.versions[name]]
        elif (live := bucket.live(name)) is not None:
            entries.append((name, live))
    after = base64.b64decode(query.get(token_name, "")).decode()
    entries = [entry for entry in entries if entry[0] > after]
    page = entries[: int(query.get(limit_name, 1000))]
    token = base64.b64encode(page[-1][0].encode()).decode() if len(entries) > len(page) else None
    return [found for _, found in page if found], [name for name, found in page if not found], token


def _error(request: web.Request, error: StorageError) -> web.Response:
    if error.status == 304:
        return web.Response(status=304)
    if request.path.startswith(_JSON_PREFIXES):
        reason = _REASONS.get(error.status, "backendError")
        detail = {"message": error.message, "domain": "global", "reason": reason}
        content = {"error": {"code": error.status, "message": error.message, "errors": [detail]}}
        return web.json_response(content, status=error.status)
    code = _XML_CODES.get(error.status, "Error")
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{escape(error.message)}</Message></Error>"
    return web.Response(status=error.status, text=text, content_type="application/xml")


async def _json_or_nothing(request: web.Request) -> dict[str, Any]:
    body = await request.read()
    content: dict[str, Any] = json.loads(body) if body else {}
    return content


def _number(request: web.Request, name: str) -> int | None:
    value = request.query.get(name)
    return None if value is None else int(value)


def _base(request: web.Request) -> str:
    return f"http://{request.host}"
