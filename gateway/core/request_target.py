"""Parse a request target into model, version, path and query, and refuse an ambiguous one.

From these follows the path that the backend gets. What two programs might read differently (`//`, dot segments, encoded slashes, NUL,
backslashes) is refused rather than normalized, so that the path we authorize is the path the backend sees.
"""

import re
from functools import lru_cache

import msgspec

from gateway.core.errors import BadRequest, TargetTooLong

MAX_TARGET_BYTES = 8000  # RFC 9110 section 4.1 recommends to support at least this

_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[!\x24\x26-\x3b=\x3f-\x5f\x61-\x7e]|%[0-9A-Fa-f]{2})*")
_AMBIGUOUS = re.compile(
    r"//"
    r"|/(?:\.|%2e){1,2}(?=/|\Z)"  # dot segments, encoded or not
    r"|%(?:2f|5c|[01][0-9a-f]|7f)",  # encoded slash, backslash, controls
    re.IGNORECASE,
)
OPEN_INFERENCE = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


class RequestTarget(msgspec.Struct, frozen=True):
    """A parsed request target: model, version, path and query.

    `model` is empty where the target is the gateway's own (`/`, `/-/…`, `/v2/health/…`).
    """

    path: str
    query: str  # with its "?", or empty
    model: str = ""
    version: str | None = None  # asked for in the path
    rest: str = ""  # the path below the backend's address; empty means its predict path
    open_inference: bool = False
    infers: bool = False  # asks for a score by the Open Inference Protocol

    @property
    def stripped_prefix(self) -> str:
        """The prefix that the gateway strips from the path. The backend sees the path without it.

        Empty where the backend sees the whole path.
        """
        return f"/{self.model}" if self.model and not self.open_inference else ""


def parse_target(target: str, *, scheme: str = "http", host: str | None = None) -> RequestTarget:
    """Parse a request target into model, version, path and query, and refuse an ambiguous one.

    The target is in origin-form, or in absolute-form that names this very `host` (RFC 9112 section 3.2). Raises BadRequest for
    any other form and for a path or query that could be read in two ways, and TargetTooLong.
    """
    if len(target) > MAX_TARGET_BYTES:
        raise TargetTooLong(f"The request target is longer than {MAX_TARGET_BYTES} bytes.")
    if not target.startswith("/"):
        target = _origin_form(target, scheme, host)
    # Only short targets are remembered: the cache must not become a store for what a hostile caller sends. And none with
    # a query, which may hold a secret.
    return _split_remembered(target) if len(target) <= 128 and "?" not in target else _split(target)


def _origin_form(target: str, scheme: str, host: str | None) -> str:
    prefix = f"{scheme}://{host}"
    if host is None or not target.lower().startswith(prefix.lower()):
        raise BadRequest("The request target must be a path, such as /my-model.")
    rest = target[len(prefix) :]
    if not rest or rest.startswith("?"):
        return "/" + rest
    if not rest.startswith("/"):
        raise BadRequest("The request target names another host than the Host header.")
    return rest


def _split(target: str) -> RequestTarget:
    path, mark, query = target.partition("?")
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        raise BadRequest("The request target contains a character that must be percent-encoded.")
    ambiguous = _AMBIGUOUS.search(path)
    if ambiguous:
        raise BadRequest(f"The path contains {ambiguous.group()!r}, which the gateway does not forward.")
    query = mark + query
    if path == "/" or path.startswith("/-/") or path == "/-":
        return RequestTarget(path, query)
    if path == "/v2" or path.startswith("/v2/"):
        match = OPEN_INFERENCE.fullmatch(path)
        if match is None:
            return RequestTarget(path, query, open_inference=True)
        return RequestTarget(
            path, query, match[1], match[2], path, open_inference=True, infers=match[3] == "/infer"
        )
    model, slash, rest = path[1:].partition("/")
    return RequestTarget(path, query, model, None, slash + rest if rest else "")


_split_remembered = lru_cache(maxsize=4096)(_split)
