# Long: one record, whose fields are set in one constructor: a request pays for each call.
"""One request and its response, as they pass the gateway.

Log line, metrics and spans are all made from it. Each field is filled by exactly one stage, named above it; a later
stage may read it, never change it. A field that has a type but no value here does not exist before its stage has run:
to read it earlier is a bug, and says so.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from gateway.core.trace_context import new_span_id

if TYPE_CHECKING:
    from gateway.core.api_keys import LastKeyDigest
    from gateway.core.compiled_model_policy import CompiledPolicy
    from gateway.core.compiled_sticky_shares import StickyVersionChooser
    from gateway.core.direct_response import Response
    from gateway.core.errors import GatewayError
    from gateway.core.head_template_cache import CachedHead
    from gateway.core.header_classification import RawHeaders, RequestHead
    from gateway.core.ip_network_set import Address
    from gateway.core.model import Backend, Model
    from gateway.core.principal import Principal
    from gateway.core.request_target import RequestTarget
    from gateway.core.trace_context import TraceContext


BUFFERED_BODY_BYTES: Final = 64 * 1024  # a body up to here is sent in one piece, and can be sent again


class RequestBody(Protocol):
    """A caller's request body. It can be read once. A caller who stops sending gets RequestTimeout."""

    @property
    def length(self) -> int | None:
        """The declared length in bytes. None for a chunked body."""

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived."""

    def buffered_body(self) -> bytes:
        """The whole body, from the buffer. Only once it is `complete`: this does not wait for the rest."""

    async def buffer_start(self, deadline: float) -> None:
        """Buffer the start of the body.

        Waits for the whole body or the first `BUFFERED_BODY_BYTES` of it, until `deadline` at most.
        """

    async def read_small_body(self) -> bytes:
        """Read the whole body, and wait for what has not arrived. Only for bodies whose declared length is small."""

    def iter_chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body's bytes as they arrive."""


class ResponseWriter(Protocol):
    """Writes the response to the caller. Call `send`, or `start`, `write`… and `finish`; call `abort` at any time."""

    @property
    def started(self) -> bool:
        """Whether the response has started. The caller may have seen a part of it."""

    def send(self, answer: "Response") -> Awaitable[None]: ...

    async def start(
        self, status: int, reason: str, fields: list[tuple[bytes, bytes]], length: int | None
    ) -> None:
        """Send the response's head. `length` None: the body's length is not known."""

    async def write(self, chunk: bytes) -> None: ...

    async def finish(self) -> None: ...

    def abort(self) -> None:
        """Break the connection before the response is complete. So a truncated body cannot look complete."""


class RetryableRefusal(Protocol):
    """A backend's refusal, held back while the request may be sent again. It is a 429 or 503."""

    async def deliver(self) -> None:
        """Send the refusal to the caller."""


class Attempt:
    """One attempt to send the request to a backend. Times are monotonic seconds; None: that point was not reached."""

    __slots__ = (
        "answered",
        "began",
        "connected",
        "dialed",
        "ended",
        "failure",
        "opening_s",
        "reused",
        "sent",
        "span_id",
        "status",
    )

    def __init__(self, began: float) -> None:
        self.began = began
        self.span_id = new_span_id()  # what the backend sees as its parent
        self.dialed: float | None = None  # TCP was there, and TLS began; only on a connection opened for it
        self.connected: float | None = None  # a connection was there: from the pool, or opened
        self.opening_s = 0.0  # how long it took to open one for it, where that was needed
        self.reused = False  # it came from the pool
        self.sent: float | None = None  # the last byte of the request was handed to the system
        self.answered: float | None = None  # the head of the answer was there
        self.ended: float | None = None
        self.status: int | None = None
        self.failure: str | None = None


class Exchange:
    """One request and its response, as it passes the pipeline. Times are monotonic seconds."""

    __slots__ = (
        "added_lines",
        "address",
        "arrived",
        "assigned",
        "attempts",
        "authenticated",
        "backend",
        "backend_server_timing",
        "body",
        "body_limit_bytes",
        "buffering_s",
        "bytes_in",
        "bytes_out",
        "cached_head",
        "caller_disconnected",
        "cause",
        "compiled_policy",
        "consumed_authorization",
        "deadline",
        "ended",
        "error",
        "generation",
        "head",
        "headers",
        "keep_trace_because",
        "last_digest",
        "may_wait",
        "method",
        "model",
        "peer",
        "permitted",
        "principal",
        "queued_s",
        "rate_limit_s",
        "raw_target",
        "refusal",
        "refused_s",
        "registry_age_s",
        "remote_ip",
        "report_only_refusals",
        "request_id",
        "response",
        "routed",
        "scheme",
        "status",
        "sticky",
        "target",
        "trace",
        "unit",
        "unlogged",
        "variable_values",
    )

    def __init__(  # noqa: PLR0913, PLR0917  (what a server knows of a request; by keyword it costs half as much again)
        self,
        method: str,
        raw_target: str,
        headers: "RawHeaders",
        peer: str,
        scheme: str,
        body: RequestBody,
        response: ResponseWriter,
        arrived: float,
        cached_head: "CachedHead | None" = None,
        variable_values: "Sequence[bytes]" = (),
        last_digest: "LastKeyDigest | None" = None,
    ) -> None:
        # the server
        self.method = method
        self.raw_target = raw_target
        self.headers = headers
        self.peer = peer  # the address at the other end of the connection
        self.scheme = scheme
        self.body = body
        self.response = response
        self.arrived = arrived  # monotonic seconds
        self.cached_head = cached_head  # where to keep what is found out about such a head
        self.variable_values = (
            variable_values  # what this request has instead of the fields that are not remembered
        )
        self.last_digest = last_digest  # what the connection remembers of its last API key
        # read request context
        self.request_id = ""
        self.head: RequestHead
        self.target: RequestTarget
        self.trace: TraceContext
        self.address: Address | None = None  # the caller's, as far as trusted hops say
        self.remote_ip = peer  # the same for logs: as text, and the peer's where it is not known
        # route to backend
        self.model: Model
        self.compiled_policy: CompiledPolicy
        self.sticky: StickyVersionChooser | None
        self.generation = 0  # of the registry that it was routed by
        self.registry_age_s: float | None = None  # since the registry confirmed that; only where asked for
        self.deadline: float  # monotonic seconds
        # route to backend, and pinned or sticky override for sticky shares and pins
        self.backend: Backend
        self.assigned = ""  # why that version: weight, sticky, pin; empty where one version has all traffic
        # pinned or sticky override
        self.unit: str  # the hash of what a sticky share stuck to; only there
        # gateway ip allowlist, authorize and concurrency limit
        self.report_only_refusals: tuple[str, ...] = ()  # codes of refusals that were only tried out
        # authenticate
        self.principal: Principal
        self.consumed_authorization = False  # the Authorization header was meant for us and ends here
        # authorize
        self.body_limit_bytes: int
        # trace sampling
        self.keep_trace_because: str | None = (
            None  # why its trace is kept, as far as that is known before the answer
        )
        # rate limit
        self.rate_limit_s = 0.0  # spent on counts that lie elsewhere
        # buffer start of body
        self.buffering_s = 0.0  # how long the rest of a small body took
        # concurrency limit, and adaptive backend concurrency
        self.queued_s = 0.0
        # adaptive backend concurrency
        self.may_wait = False  # a refusal of the backend's need not be the answer
        # forward
        self.refused_s: float | None = None  # the backend refused, and named these seconds
        self.refusal: RetryableRefusal | None = None  # that answer, where it was kept from the caller
        self.attempts: list[Attempt] = []
        self.backend_server_timing: bytes | None = None
        self.bytes_in = 0
        # cors and rate limit: field lines that the gateway adds to whatever answer follows, each with its CRLF
        self.added_lines = b""
        # the response
        self.status = 0
        self.bytes_out = 0
        # control
        self.unlogged = False  # a probe that went well: nothing to tell
        # the pipeline: when a stage that may wait was done; 0.0 where it did not come to that
        self.routed = 0.0
        self.authenticated = 0.0
        self.permitted = 0.0
        self.error: GatewayError | None = None
        self.cause: BaseException | None = None  # what lies behind `error`; for the log only
        self.caller_disconnected = False  # the caller went away before the answer was complete
        self.ended = 0.0
