"""The CORS policy of a model: which origins may call it from a browser.

Header fields tell the browser so. A rule is aiohttp-cors' `ResourceOptions` as a document of the registry: the same fields,
made into one when it is read. On the fixed routes under /-/ that library itself answers
(gateway/control/health_and_openapi_cors.py). On the data plane the same options are applied from fields made ready: the
library costs 12 µs a request, sends no `Vary: Origin`, and cannot take routes that come and go.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.core.direct_response import field_lines

if TYPE_CHECKING:
    from aiohttp_cors import ResourceOptions

HeaderFields = tuple[tuple[bytes, bytes], ...]

ANY: Final = "*"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ORIGIN: Final = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?"
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
VARY: Final = (b"Vary", b"Origin")
# What the gateway says of its own in an answer, for the page's program to read.
OWN_FIELDS: Final = (
    "X-Request-Id",
    "X-Trace-Id",
    "chips-error",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-Chips-Model",
)


class CorsRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The CORS rule for one origin: what its pages may send and read."""

    allow_credentials: bool = False
    expose_headers: Literal["*"] | tuple[str, ...] = ()
    allow_headers: Literal["*"] | tuple[str, ...] = ()
    max_age: int | None = None  # seconds for which a browser may remember a preflight
    allow_methods: Literal["*"] | tuple[str, ...] | None = None  # None: those that the model takes

    def options(self) -> "ResourceOptions":
        from aiohttp_cors import (
            ResourceOptions,
        )  # late: with it comes aiohttp's server, which commands do without

        return ResourceOptions(**msgspec.structs.asdict(self))


def cors_problems(rules: Mapping[str, CorsRule]) -> list[str]:
    """Everything that is wrong with the CORS rules. `rules` are by origin. There is a sentence for each problem."""
    problems = []
    for origin, rule in rules.items():
        if origin != ANY:
            problems += origin_problem(origin)
        elif rule.allow_credentials:
            problems.append('origin "*" cannot go with credentials: name the origins that may send them')
        if rule.allow_credentials and rule.expose_headers == ANY:
            problems.append(f'origin {origin}: exposing "*" cannot go with credentials: name the headers')
        if rule.max_age is not None and not 0 <= rule.max_age <= 86_400:
            problems.append(f"origin {origin}: the age of a preflight must lie between 0 and 86400 seconds")
        names = [*rule.expose_headers, *rule.allow_headers, *(rule.allow_methods or ())]
        problems += [f"origin {origin}: {name!r} is no name" for name in names if not _TOKEN.fullmatch(name)]
    return problems


def origin_problem(origin: str) -> list[str]:
    """What is wrong with a CORS origin. The list is empty where nothing is wrong.

    It must be scheme, host and any port, as a browser writes them; `*` is none.
    """
    shown = repr(origin[:200])
    if not _ORIGIN.fullmatch(origin):
        return [
            f"{shown} is not an origin: write it as a browser does, such as https://app.example.com, without a path"
        ]
    if origin.endswith(_DEFAULT_PORTS[origin.partition(":")[0]]):
        return [f"{shown} names the usual port, which browsers leave out"]
    return []


class CorsPolicy:
    """A model's CORS policy: its options by origin. They are precomputed: a request costs one look-up."""

    __slots__ = ("_any", "_by_origin", "_refused")

    def __init__(self, options: Mapping[str, "ResourceOptions"]) -> None:
        self._by_origin = {origin.encode("ascii"): _Ready(origin, each) for origin, each in options.items()}
        self._any = self._by_origin.pop(b"*", None)
        self._refused = field_lines((VARY,))

    def vary_and_cors_lines(self, origin: bytes | None) -> bytes:
        """The CORS field lines to add to a response to a page of `origin`.

        `Vary` is always one: a cache must not give one origin's response to another.
        """
        ready = self._ready(origin)
        return self._refused if ready is None else ready.lines

    def preflight_fields(
        self, origin: bytes | None, method: str, headers: str, takes: frozenset[str]
    ) -> HeaderFields | None:
        """The header fields that answer a preflight request.

        None where the request asks for what is not allowed. It asks for `method` with `headers` (as the browser lists them).
        `takes` are the methods that the model accepts.
        """
        ready = self._ready(origin)
        if ready is None:
            return None
        names = [name.strip() for name in headers.split(",") if name.strip()]
        if not ready.permits(method, names, takes):
            return None
        fields = [*ready.shared, (b"Access-Control-Allow-Methods", method.encode("ascii"))]
        if names:
            fields.append((b"Access-Control-Allow-Headers", ", ".join(names).encode("ascii")))
        if ready.options.max_age is not None:
            fields.append((b"Access-Control-Max-Age", b"%d" % ready.options.max_age))
        return tuple(fields)

    def _ready(self, origin: bytes | None) -> "_Ready | None":
        return None if origin is None else self._by_origin.get(origin, self._any)


class _Ready:
    __slots__ = ("lines", "options", "shared")

    def __init__(self, origin: str, options: "ResourceOptions") -> None:
        self.options = options
        shared: list[tuple[bytes, bytes]] = [VARY, (b"Access-Control-Allow-Origin", origin.encode("ascii"))]
        if options.allow_credentials:
            shared.append((b"Access-Control-Allow-Credentials", b"true"))
        self.shared: HeaderFields = tuple(shared)
        theirs = options.expose_headers
        exposed = ANY if theirs == ANY else ", ".join((*sorted(theirs), *OWN_FIELDS))
        self.lines = field_lines((*shared, (b"Access-Control-Expose-Headers", exposed.encode("ascii"))))

    def permits(self, method: str, names: list[str], takes: frozenset[str]) -> bool:
        options = self.options
        if method not in takes or not all(_TOKEN.fullmatch(name) for name in names):
            return False
        if options.allow_methods is not None and not options.is_method_allowed(method):
            return False
        return options.allow_headers == ANY or all(name.upper() in options.allow_headers for name in names)
