"""Rewrite a backend's URLs in Location, Content-Location, Link and Refresh to paths at the gateway.

nginx's proxy_redirect does the same. A backend answers as if callers had asked it directly: `Location:
http://backend/score`, or `/score`. A caller who follows that would send its credentials past the gateway, or reach another
model. So an address is resolved as the backend meant it (RFC 9110 section 10.2.2: against the request's URL), and one that
is the backend's becomes a path at the gateway.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urljoin, urlsplit

from gateway.core.header_classification import CRLF, HOST
from gateway.core.request_target import OPEN_INFERENCE, RequestTarget

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

ADDRESS_FIELDS: Final = frozenset({b"location", b"content-location", b"link", b"refresh"})

_AUTHORITY: Final = re.compile(r"(https?):/*(?=[^/])|(?:)//+", re.IGNORECASE)  # as browsers read it
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
# As browsers read it (HTML, "shared declarative refresh steps"): blanks alone part the seconds from the address, too.
_REFRESH: Final = re.compile(
    r"""([0-9.\s]*[;,\s]\s*(?:url\s*=\s*)?)(["']?)(.*?)(\2)""", re.IGNORECASE | re.DOTALL
)
_LINK: Final = re.compile(
    r'"(?:[^"\\]|\\.)*"|<([^<>]*)>'
)  # RFC 8288 section 3: a target, or what only looks like one
_SECONDS: Final = re.compile(r"[0-9.]*[;,]?")
_PORTS: Final = {"http": 80, "https": 443}
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104  (names of one host)


def rewrite_urls(exchange: "Exchange", fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Rewrite the backend's URLs in `fields`, and return the field lines.

    Each line has its CRLF. `fields` are those of a response that hold URLs (`ADDRESS_FIELDS`). One whose URL callers
    could not follow is left out.
    """
    lines: list[bytes] = []
    for name, value in fields:
        rewritten = _rewrite(exchange, name, value.decode("latin-1"))
        if rewritten is not None:
            lines += (name, b": ", rewritten.encode("latin-1"), CRLF)
    return b"".join(lines)


def _rewrite(exchange: "Exchange", name: bytes, value: str) -> str | None:
    lower = name.lower()
    if lower == b"link":
        return _links(exchange, value)
    if lower != b"refresh":
        return _address(exchange, value)
    if _SECONDS.fullmatch(value):
        return value
    match = _REFRESH.fullmatch(value)
    if match is None:
        return None
    address = _address(exchange, match[3])
    return None if address is None else f"{match[1]}{match[2]}{address}{match[4]}"


def _links(exchange: "Exchange", value: str) -> str | None:
    """Clients follow `rel=next` as they follow a redirect, with their credentials."""
    parts: list[str] = []
    position = 0
    for match in _LINK.finditer(value):
        if match[1] is not None:
            address = _address(exchange, match[1])
            if address is None:
                return None
            parts += (value[position : match.start()], "<", address, ">")
            position = match.end()
    return "".join((*parts, value[position:]))


def _address(exchange: "Exchange", value: str) -> str | None:
    """`value` as a caller may follow it; None where it is the backend's, but no path of the gateway's leads there."""
    target, backend = exchange.target, urlsplit(exchange.backend.url)
    asked = f"{exchange.backend.url}{target.rest or exchange.backend.predict_path}{target.query}"
    meant = value.strip().replace("\t", "").replace("\\", "/")
    authority = _AUTHORITY.match(meant)
    if authority is not None:
        meant = f"{authority[1] or backend.scheme}://{meant[authority.end() :]}"
    elif _SCHEME.match(meant):
        return value  # mailto: and the like
    try:
        parts = urlsplit(urljoin(asked, meant))
        if not _is_backend(parts, backend) and not _is_gateway(parts, exchange.head.read[HOST]):
            return value
    except ValueError:  # such as a port that is no number: nobody can say where it leads
        return None
    path = _path_here(target, _without_dots(parts.path), backend.path, urlsplit(asked).path)
    if path is None:
        return None
    query = f"?{parts.query}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{path}{query}{fragment}"


def _without_dots(path: str) -> str:
    """`path` without dot segments (RFC 3986 section 5.2.4): below `/<model>` they would lead to another model.

    An encoded dot is one, as browsers have it.
    """
    kept: list[str] = []
    dots = False
    for segment in path.split("/")[1:]:
        plain = segment.lower().replace("%2e", ".")
        dots = plain in {".", ".."}
        if not dots:
            kept.append(segment)
        elif plain == "..":
            del kept[-1:]
    if dots:
        kept.append("")
    return "/" + "/".join(kept)


def _path_here(target: RequestTarget, path: str, base: str, asked: str) -> str | None:
    """The path at the gateway of the backend's `path`."""
    here = f"/{target.model}"
    if _lies_below(path, here) and not _lies_below(asked, here):
        return path  # the backend minds X-Forwarded-Prefix
    if base:
        if not _lies_below(path, base):
            return None
        path = path[len(base) :] or "/"
    if target.open_inference:
        match = OPEN_INFERENCE.fullmatch(path)
        if match is not None and match[1] == target.model and match[2] in {None, target.version}:
            version = "" if target.version is None else f"/versions/{target.version}"
            return f"/v2/models/{target.model}{version}{match[3] or ''}"
        if target.version is not None:
            return None  # another version might answer there
    return here + path


def _lies_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _is_backend(parts: SplitResult, backend: SplitResult) -> bool:
    ours, theirs = (backend.hostname or "").rstrip("."), (parts.hostname or "").rstrip(".")
    if ours != theirs and not (ours in _THIS_MACHINE and theirs in _THIS_MACHINE):
        return False
    # Without a port, and by either scheme: a backend behind a proxy of its own does not know how it is reached.
    port = parts.port
    return port is None or port in {backend.port or _PORTS[backend.scheme], _PORTS.get(parts.scheme)}


def _is_gateway(parts: SplitResult, host: bytes | None) -> bool:
    """Whether it is where the caller believes to be, which the backend knows from X-Forwarded-Host."""
    return host is not None and parts.netloc.lower() == host.decode("latin-1").lower()
