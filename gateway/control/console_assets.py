"""The web console's static files, served from memory. They carry a strict Content-Security-Policy."""

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from gateway.core.direct_response import Response
from gateway.core.header_classification import RawHeaders

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "mjs": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PAGES = {"": "console.html", "docs": "docs.html"}


def find_asset(path: str, headers: RawHeaders) -> Response | None:
    """Find the console's static file at `path` as a response. None where there is none.

    `path` is below /-/console/, or `docs`. An unchanged file (`If-None-Match`) is a 304.
    """
    name = _PAGES.get(path, path)
    if name not in _names():
        return None
    body, tag = _read(name)
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


def prefers_html(headers: RawHeaders) -> bool:
    """Whether `Accept` prefers HTML to JSON. A browser's does (RFC 9110 section 12.5.1)."""
    accept = b",".join(value for field, value in headers if field.lower() == b"accept").decode("latin-1")
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, wanted: str) -> float:
    """The weight of a media type that is named itself; 0 where only a wildcard takes it in."""
    for entry in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        if media_type == wanted:
            weights = [p.partition("=")[2] for p in parameters if p.startswith("q=")]
            try:
                return float(weights[0]) if weights else 1.0
            except ValueError:
                return 0.0
    return 0.0


@cache
def _names() -> dict[str, Traversable]:
    """The files of the console by their path below its folder."""
    folder = files("gateway.control").joinpath("console")
    found = {entry.name: entry for entry in folder.iterdir()}
    found |= {f"vendor/{entry.name}": entry for entry in folder.joinpath("vendor").iterdir()}
    return {name: entry for name, entry in found.items() if name.rpartition(".")[2] in _TYPES}


@cache
def _read(name: str) -> tuple[bytes, bytes]:
    body = _names()[name].read_bytes()
    return body, b'"' + hashlib.sha256(body).hexdigest()[:24].encode() + b'"'
