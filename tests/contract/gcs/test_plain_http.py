"""The same server by plain HTTP, as R and Julia use it."""

import gzip
import hashlib
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.gcs.fixture import Gcs
from tests.patience import patience

DATA = bytes(range(256)) * 100


@pytest.fixture
def http(gcs: Gcs) -> Any:
    def call(method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Any:
        path = path.replace("{b}", gcs.bucket)
        return requests.request(
            method, gcs.url + path, headers=headers, data=body, timeout=patience(10), allow_redirects=False
        )

    call("PUT", "/{b}/dir/a%20b%2B%C3%BC.bin", body=DATA)
    call("PUT", "/{b}/once", body=b"1")
    return call


ODD = "dir%2Fa%20b%2B%C3%BC.bin"


def test_metadata(http):
    answer = http("GET", f"/storage/v1/b/{{b}}/o/{ODD}")
    assert (answer.status_code, answer.json()["size"]) == (200, str(len(DATA)))


@pytest.mark.parametrize(
    "path", [f"/storage/v1/b/{{b}}/o/{ODD}?alt=media", f"/download/storage/v1/b/{{b}}/o/{ODD}?alt=media"]
)
def test_content(http, path):
    answer = http("GET", path)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert "x-goog-hash" in answer.headers


def test_xml_content_and_headers(http):
    answer = http("GET", "/{b}/dir/a%20b%2B%C3%BC.bin")
    assert answer.content == DATA
    assert answer.headers["ETag"] == f'"{hashlib.md5(DATA, usedforsecurity=False).hexdigest()}"'
    for name in ("x-goog-generation", "x-goog-hash", "last-modified", "x-goog-stored-content-length"):
        assert name in answer.headers


def test_xml_head(http):
    answer = http("HEAD", "/{b}/once")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "1", b"")


def test_not_modified(http):
    etag = http("GET", "/{b}/once").headers["etag"]
    assert http("GET", "/{b}/once", {"If-None-Match": etag}).status_code == 304
    generation = http("GET", "/storage/v1/b/{b}/o/once").json()["generation"]
    assert (
        http("GET", f"/storage/v1/b/{{b}}/o/once?alt=media&ifGenerationNotMatch={generation}").status_code
        == 304
    )


@pytest.mark.parametrize("headers", [{"If-Match": '"nope"'}, {"x-goog-if-generation-match": "5"}])
def test_precondition_failed(http, headers):
    assert http("GET", "/{b}/once", headers).status_code == 412


def test_ranges(http):
    answer = http("GET", f"/storage/v1/b/{{b}}/o/{ODD}?alt=media", {"Range": "bytes=0-99"})
    assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes 0-99/{len(DATA)}")
    assert answer.content == DATA[:100]
    assert http("GET", "/{b}/dir/a%20b%2B%C3%BC.bin", {"Range": "bytes=-5"}).content == DATA[-5:]
    assert http("GET", "/{b}/once", {"Range": "bytes=5-"}).status_code == 416


def test_media_upload(http):
    assert http(
        "POST", "/upload/storage/v1/b/{b}/o?uploadType=media&name=m", {"content-type": "text/plain"}, b"abc"
    ).ok
    assert http("GET", "/{b}/m").content == b"abc"
    again = http("POST", "/upload/storage/v1/b/{b}/o?uploadType=media&name=m&ifGenerationMatch=0", {}, b"abc")
    assert again.status_code == 412


def test_xml_list(http):
    answer = http("GET", "/{b}?list-type=2&prefix=on")
    assert b"<Key>once</Key>" in answer.content
    assert b"dir/" not in answer.content


def test_xml_delete(http):
    assert http("DELETE", "/{b}/once").status_code == 204
    answer = http("GET", "/{b}/once")
    assert (answer.status_code, b"<Code>NoSuchKey</Code>" in answer.content) == (404, True)


def test_json_errors(http):
    answer = http("GET", "/storage/v1/b/{b}/o/nope")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, 404)


def test_gzip_as_it_is(http, gcs):
    packed = gzip.compress(b"hello" * 100)
    http("POST", "/upload/storage/v1/b/{b}/o?uploadType=media&name=gz&contentEncoding=gzip", {}, packed)
    answer = http("GET", "/{b}/gz", {"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == b"hello" * 100
    plain = http("GET", "/{b}/gz", {"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == b"hello" * 100


def test_keep_alive(http):
    answer = http("GET", "/{b}/once")
    assert answer.raw.version == 11
    assert answer.headers.get("connection", "").lower() != "close"


def test_a_slow_caller_holds_up_nobody(http, gcs):
    parts = urlsplit(gcs.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as slow:
        slow.sendall(b"GET /x HTTP/1.1\r\n")
        assert http("GET", "/{b}/once").content == b"1"


def test_credentials_are_not_minded(http):
    assert http("GET", "/{b}/once", {"Authorization": "Bearer x"}).status_code == 200


def test_a_broken_resumable_upload_goes_on_where_it_was(http, gcs):
    opened = http("POST", "/upload/storage/v1/b/{b}/o?uploadType=resumable&name=r", {}, b"{}")
    session = opened.headers["Location"]
    body = bytes(1_000_000)
    gcs.fault(method="PUT", path="upload_id", truncate=300_000)
    with pytest.raises(requests.ConnectionError):
        requests.put(
            session, data=body, headers={"Content-Range": "bytes 0-999999/1000000"}, timeout=patience(10)
        )
    asked = requests.put(session, headers={"Content-Range": "bytes */1000000"}, timeout=patience(10))
    here = int(asked.headers["Range"].rpartition("-")[2]) + 1
    assert asked.status_code == 308
    assert 300_000 <= here < 1_000_000
    done = requests.put(
        session,
        data=body[here:],
        headers={"Content-Range": f"bytes {here}-999999/1000000"},
        timeout=patience(10),
    )
    assert (done.status_code, done.json()["size"]) == (200, "1000000")


@pytest.mark.parametrize("fault", [{"reset": True}, {"truncate": 3}])
def test_broken_downloads(http, gcs, fault):
    gcs.fault(method="GET", path="dir/", **fault)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        http("GET", "/{b}/dir/a%20b%2B%C3%BC.bin")
    assert http("GET", "/{b}/dir/a%20b%2B%C3%BC.bin").content == DATA
