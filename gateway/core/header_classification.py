"""Classify header fields: which ones the gateway reads, which it forwards, and which it drops.

Hop-by-hop fields end here (RFC 9110 section 7.6.1), and so does every field by which the gateway itself speaks: a
caller must not be able to pretend to be the gateway to a backend, nor a backend to a caller.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from gateway.core.api_keys import LastKeyDigest
from gateway.core.errors import BadRequest
from gateway.core.ip_network_set import Address
from gateway.core.request_target import RequestTarget

RawHeaders = Iterable[tuple[bytes, bytes]]

CRLF: Final = b"\r\n"

# What is read: positions in RequestHead.read.
HOST: Final = 0
API_KEY: Final = 1
AUTHORIZATION: Final = 2
FORWARDED_FOR: Final = 3
TRACEPARENT: Final = 4
CLOUD_TRACE: Final = 5
REQUEST_ID: Final = 6
REQUEST_TIMEOUT: Final = 7
CONNECTION: Final = 8
EXPECT: Final = 9
TRACESTATE: Final = 10
KEEP_TRACE: Final = 11
FORWARDED: Final = 12
ORIGIN: Final = 13
REPORT_REGISTRY: Final = 14
UPGRADE: Final = 15
VIA: Final = 16
PINNED_VERSION: Final = 17
CREDENTIALS: Final = 18  # from here on: what authenticators have reserved
_DROPPED: Final = -1

_KIND: Final[dict[bytes, int]] = {
    b"host": HOST,
    b"x-api-key": API_KEY,
    b"authorization": AUTHORIZATION,
    b"x-forwarded-for": FORWARDED_FOR,
    b"traceparent": TRACEPARENT,
    b"x-cloud-trace-context": CLOUD_TRACE,
    b"x-request-id": REQUEST_ID,
    b"x-request-timeout": REQUEST_TIMEOUT,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"tracestate": TRACESTATE,
    b"x-chips-trace": KEEP_TRACE,
    b"forwarded": FORWARDED,
    b"origin": ORIGIN,
    b"x-chips-registry": REPORT_REGISTRY,
    b"x-chips-version": PINNED_VERSION,
    b"upgrade": UPGRADE,
    b"via": VIA,
    # hop-by-hop
    b"keep-alive": _DROPPED,
    b"proxy-authenticate": _DROPPED,
    b"proxy-authorization": _DROPPED,
    b"proxy-connection": _DROPPED,
    b"te": _DROPPED,
    b"trailer": _DROPPED,
    b"transfer-encoding": _DROPPED,
    # written again by the upstream
    b"content-length": _DROPPED,
    b"x-forwarded-host": _DROPPED,
    b"x-forwarded-proto": _DROPPED,
    b"x-forwarded-port": _DROPPED,
    b"x-forwarded-prefix": _DROPPED,
    b"x-real-ip": _DROPPED,
    b"x-serverless-authorization": _DROPPED,
}
# What no credential can be carried in: fields with a meaning of their own, here or to what speaks HTTP on the way.
FIELDS_IN_USE: Final = frozenset(name.decode() for name in _KIND) - {
    "x-serverless-authorization",
    "proxy-authorization",
} | {
    *(
        "accept",
        "accept-encoding",
        "content-type",
        "content-encoding",
        "cookie",
        "date",
        "forwarded",
        "range",
    ),
    *("referer", "set-cookie", "user-agent"),
}
_LIST_FIELDS: Final = frozenset({FORWARDED_FOR, FORWARDED, CONNECTION, EXPECT, TRACESTATE, VIA})

# By these, proxies and platforms tell a server who is calling. A backend may believe them, so no caller may send them.
_IDENTITY_PREFIXES: Final = (
    b"x-chips-",
    b"x-goog-authenticated-user-",
    b"x-goog-iap-",
    b"x-endpoint-api-",
    b"x-apigateway-api-",
    b"x-client-cert-",
    b"x-forwarded-client-cert",
    b"x-forwarded-user",
    b"x-forwarded-email",
    b"x-forwarded-groups",
    b"x-forwarded-preferred-username",
    b"x-forwarded-access-token",
    b"x-forwarded-authorization",
    b"x-forwarded-by",
    b"x-forwarded-server",
    b"x-forwarded-ssl",
    b"x-auth-request-",
    b"x-ssl-client-",
    b"ssl-client-",
    b"x-amzn-oidc-",
    b"x-ms-client-principal",
    b"x-original-",
    b"x-rewrite-url",
    b"x-remote-",
    b"remote-user",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-envoy-external-address",
    b"x-appengine-",
    b"x-webauth-user",
)

_NOTHING: Final[frozenset[int]] = frozenset()
_blank: list[bytes | None] = [None] * CREDENTIALS

_learned: dict[bytes, bytes | int] = {}
_LEARNED_LIMIT: Final = 1024


def _nothing_read() -> list[bytes | None]:
    return _blank.copy()


class RequestHead(msgspec.Struct, eq=False):
    """A caller's request head, with its fields classified.

    It has the fields that the gateway reads, those it forwards, and the client's address. `outbound` holds the field
    lines that go on to a backend as they came, each with its CRLF.
    """

    read: list[bytes | None] = msgspec.field(default_factory=_nothing_read)
    outbound: bytes = b""
    ends_here: frozenset[int] = (
        _NOTHING  # positions of fields that Connection names: read here, but never sent on
    )
    address: Address | None = None  # the caller's, as far as trusted proxies say
    address_text: str = ""  # the same as text, which takes long to write
    vouched: bool = False  # it came through a trusted proxy, which answers for the fields that it writes
    last_digest: LastKeyDigest | None = None  # what its connection remembers of the last API key
    forwarded_for: bytes | None = None  # X-Forwarded-For, where that proxy wrote it
    target: RequestTarget = None  # type: ignore[assignment]  # until it has been parsed
    way: bytes = b""  # the field lines that tell a backend how the request came here

    def as_template(self, indexes: Iterable[int]) -> "RequestHead":
        """A template copy of the head without the values of the fields at `indexes`."""
        head = _copy(self)
        head.last_digest = None
        head.read = read = self.read.copy()
        for index in indexes:
            read[index] = None
        return head

    def with_variable_values(self, indexes: Iterable[int], values: Sequence[bytes]) -> "RequestHead":
        """A copy of this template with `values` at `indexes`. Values beyond the last index are ignored."""
        head = _copy(self)
        head.read = read = self.read.copy()
        for index, value in zip(indexes, values):  # noqa: B905  (a length may stand behind them)
            read[index] = value
        return head


_copy: Final[Callable[[RequestHead], RequestHead]] = RequestHead.__copy__  # type: ignore[attr-defined]  # msgspec's


def classify_request_headers(raw_headers: RawHeaders) -> RequestHead:
    """Classify a request's header fields.

    In one pass, it tells those that are read, forwarded, and dropped. Raises BadRequest where a field that may stand
    once stands twice: two programs would choose different ones.
    """
    head = RequestHead()
    read = head.read
    outbound: list[bytes] = []
    for name, value in raw_headers:
        kind = _learned.get(name)
        if kind is None:
            kind = _learn(name)
        if kind.__class__ is bytes:
            outbound += (kind, value, CRLF)
        elif kind != _DROPPED:
            index: int = kind  # type: ignore[assignment]
            before = read[index]
            if before is None:
                read[index] = value
            elif index in _LIST_FIELDS:
                read[index] = before + b", " + value
            else:
                raise BadRequest(f"The header {name.decode('latin-1')} is given more than once.")
    connection = read[CONNECTION]
    if connection is not None:
        nominated = parse_token_list(connection) - {b"keep-alive", b"close", b"upgrade", b""}
        if nominated:
            outbound = _without_nominated(outbound, nominated)
            head.ends_here = frozenset(map(position_in_read_fields, nominated)) - {_DROPPED}
    head.outbound = b"".join(outbound)
    return head


def position_in_read_fields(name: bytes) -> int:
    """The position of a field in `RequestHead.read`. It is -1 where the field is not read."""
    kind = _learned.get(name)
    if kind is None:
        kind = _learn(name)
    return kind if isinstance(kind, int) else _DROPPED


def register_credential_field(name: str) -> int:
    """Register a header field that carries a credential.

    Returns its position in `RequestHead.read`. A request may have the field once, and it is never forwarded to a
    backend. Authenticators call this when they are made.
    """
    lower = name.lower().encode("ascii")
    kind = _KIND.get(lower, _DROPPED)
    if kind == _DROPPED:
        kind = _KIND[lower] = len(_blank)
        _blank.append(None)
        _learned.clear()
    return kind


def _learn(name: bytes) -> bytes | int:
    # Some servers read "_" in a name as "-" (CGI's rule), so X_Chips_Caller must not slip past X-Chips-Caller.
    plain = name.lower().replace(b"_", b"-")
    kind: bytes | int
    if plain in _KIND:
        kind = _KIND[plain] if b"_" not in name else _DROPPED
    elif plain.startswith(_IDENTITY_PREFIXES):
        kind = _DROPPED
    else:
        kind = name + b": "
    if len(_learned) < _LEARNED_LIMIT and len(name) <= 64:
        _learned[name] = kind
    return kind


def parse_token_list(value: bytes) -> set[bytes]:
    """Parse a comma-separated list of tokens. Returns them in lower case (RFC 9110 section 5.6.1)."""
    return {token.strip(b" \t").lower() for token in value.split(b",")}


def asks_for_websocket(method: str, read: Sequence[bytes | None]) -> bool:
    """Whether a request asks for a WebSocket (RFC 6455 section 4.1). `read` is RequestHead.read.

    Other protocols are never upgraded to. Connection must name Upgrade: else the field is to be ignored (RFC 9110
    section 7.8).
    """
    upgrade, connection = read[UPGRADE], read[CONNECTION]
    return (
        upgrade is not None
        and connection is not None
        and method == "GET"
        and upgrade.lower() == b"websocket"
        and b"upgrade" in parse_token_list(connection)
    )


def _without_nominated(outbound: list[bytes], nominated: set[bytes]) -> list[bytes]:
    """`outbound` without the fields that Connection names (RFC 9110 section 7.6.1)."""
    kept: list[bytes] = []
    for i in range(0, len(outbound), 3):
        if outbound[i][:-2].lower() not in nominated:
            kept += outbound[i : i + 3]
    return kept


# What the gateway itself says in an answer, or keeps to itself: a backend's own such fields end here.
RESPONSE_FIELDS_DROPPED: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"chips-error",  # says that the gateway failed, so no backend may say it
        b"x-request-id",
        b"x-trace-id",
        b"x-chips-model",
        b"x-chips-registry",
        b"server-timing",  # goes on in the gateway's own field of that name
        # what runs behind the gateway is nobody's business
        b"server",
        b"via",
        b"x-powered-by",
        b"x-aspnet-version",
        b"x-envoy-upstream-service-time",
        b"x-backend-server",
        b"x-served-by",
        b"x-cloud-trace-context",
        b"alt-svc",
        # a backend's word on who may read its answers is not the gateway's: the model's policy says it
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-methods",
        b"access-control-allow-headers",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"ratelimit",
        b"ratelimit-policy",
    }
)


def is_allowed_trailer(name: bytes) -> bool:
    """Whether a field may be sent as a trailer. Some programs treat a trailer as if it were in the head."""
    return name.lower() not in RESPONSE_FIELDS_DROPPED and _learn(name).__class__ is bytes
