"""The web console's static files, served from memory with a strict Content-Security-Policy."""

import hashlib
from functools import cache
from importlib.resources import files

from gateway.core.headers import RawHeaders
from gateway.core.response import Response

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PAGES = {"": "console.html", "docs": "docs.html"}


def asset(path: str, headers: RawHeaders) -> Response | None:
    """The file at `path` below /-/console/ (or `docs`); None where there is none."""
    name = _PAGES.get(path, path)
    found = _read(name) if name in _names() else None
    if found is None:
        return None
    body, tag = found
    fields = (
        (b"Content-Type", _TYPES[name.rpartition(".")[2]]),
        (b"ETag", tag),
        (b"Cache-Control", b"no-cache"),  # asked for again each time; unchanged, it is not sent again
        (b"Content-Security-Policy", POLICY),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Referrer-Policy", b"no-referrer"),
        (b"Cross-Origin-Opener-Policy", b"same-origin"),
        (b"Cross-Origin-Resource-Policy", b"same-origin"),
    )
    asked = next((value for field, value in headers if field.lower() == b"if-none-match"), None)
    if asked is not None and asked == tag:
        return Response(304, fields, b"")
    return Response(200, fields, body)


@cache
def _names() -> frozenset[str]:
    return frozenset(
        entry.name
        for entry in files("gateway.control").joinpath("console").iterdir()
        if entry.name.rpartition(".")[2] in _TYPES
    )


@cache
def _read(name: str) -> tuple[bytes, bytes]:
    body = files("gateway.control").joinpath("console").joinpath(name).read_bytes()
    return body, b'"' + hashlib.sha256(body).hexdigest()[:24].encode() + b'"'
