"""The errors that become HTTP responses.

Each has its status, code and title. A class exists only because its `code` is a contract with callers; any other exception
is a bug and becomes `internal-error`. Codes never change.

    GatewayError
    ├── CallerError                  the caller can fix it
    │   ├── BadRequest               400 bad-request
    │   ├── Unauthenticated          401 unauthenticated
    │   ├── BudgetExhausted          402 budget-exhausted
    │   ├── AddressNotAllowed        403 address-not-allowed
    │   ├── Forbidden                403 forbidden
    │   ├── ModelNotFound            404 model-not-found
    │   ├── PageNotFound             404 not-found
    │   ├── MethodNotAllowed         405 method-not-allowed
    │   ├── RequestTimeout           408 request-timeout
    │   ├── PayloadTooLarge          413 payload-too-large
    │   ├── TargetTooLong            414 target-too-long
    │   ├── TooManyRequests          429 too-many-requests
    │   ├── HeadersTooLarge          431 headers-too-large
    │   ├── MethodNotImplemented     501 method-not-implemented
    │   └── HttpVersionNotSupported  505 version-not-supported
    ├── UpstreamError                the backend failed
    │   ├── UpstreamUnreachable      502 upstream-unreachable    nothing was sent
    │   ├── BrokenUpstreamResponse   502 upstream-broken         it failed after we sent something
    │   ├── UpstreamUnavailable      503 upstream-unavailable    no backend can take it now
    │   ├── UpstreamTimeout          504 upstream-timeout        slower than the model's time-out
    │   └── DeadlineExceeded         504 deadline-exceeded       the deadline passed
    └── GatewayFault                 we failed
        ├── Overloaded               503 overloaded
        ├── RegistryUnavailable      503 registry-unavailable
        ├── IssuerUnavailable        503 issuer-unavailable      a token cannot be checked now
        ├── LoopDetected             508 loop-detected           a backend leads back to this gateway
        └── InternalError            500 internal-error
"""

from math import ceil
from typing import ClassVar

HeaderList = tuple[tuple[bytes, bytes], ...]


class GatewayError(Exception):
    """An error that becomes a response. `detail` is safe to show to any caller; the cause is logged and never rendered."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    side: ClassVar[str]  # who can fix it: caller, backend, gateway
    headers: HeaderList = ()

    # Exception's own constructor is not called: it would only cost time, and strangers cause these errors.
    def __init__(self, detail: str) -> None:
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def _retry_after(seconds: int) -> HeaderList:
    return ((b"Retry-After", str(seconds).encode("ascii")),)


class CallerError(GatewayError):
    """4xx: the caller can fix it."""

    side = "caller"


class BadRequest(CallerError):
    """400: the request is malformed."""

    code, status, title = "bad-request", 400, "Bad request"


class Unauthenticated(CallerError):
    """401: no credentials, or bad ones."""

    code, status, title = "unauthenticated", 401, "Not authenticated"
    # RFC 9110 section 11.6.1: a 401 names at least one challenge.
    headers = ((b"WWW-Authenticate", b'Bearer realm="chips"'),)


class BudgetExhausted(CallerError):
    """402: a budget is used up. `Retry-After` says when its period ends.

    A budget whose `refuse` is 429 raises TooManyRequests instead.
    """

    code, status, title = "budget-exhausted", 402, "Budget exhausted"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.headers = _retry_after(ceil(retry_after_s) or 1)


class AddressNotAllowed(CallerError):
    """403: the client's address is not in an allowed network."""

    code, status, title = "address-not-allowed", 403, "Address not allowed"


class Forbidden(CallerError):
    """403: the principal has no permission for this model or verb."""

    code, status, title = "forbidden", 403, "Forbidden"


class ModelNotFound(CallerError):
    """404: there is no such model or version."""

    code, status, title = "model-not-found", 404, "Model not found"


class PageNotFound(CallerError):
    """404: there is no such page of the gateway. There may also be no such request or model on it."""

    code, status, title = "not-found", 404, "Not found"


class MethodNotAllowed(CallerError):
    """405: the model is not called by this method."""

    code, status, title = "method-not-allowed", 405, "Method not allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        # RFC 9110 section 15.5.6: a 405 names what would be allowed.
        super().__init__(detail)
        self.headers = ((b"Allow", allow.encode("ascii")),)


class RequestTimeout(CallerError):
    """408: the caller sent the request too slowly."""

    code, status, title = "request-timeout", 408, "Request timeout"


class PayloadTooLarge(CallerError):
    """413: the request body is larger than the model's limit."""

    code, status, title = "payload-too-large", 413, "Payload too large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request body is larger than the {limit_bytes} bytes that this model accepts.")


class TargetTooLong(CallerError):
    """414: the request target is too long."""

    code, status, title = "target-too-long", 414, "Request target too long"


class HeadersTooLarge(CallerError):
    """431: the request's header fields are too large."""

    code, status, title = "headers-too-large", 431, "Request header fields too large"


class MethodNotImplemented(CallerError):
    """501: the gateway does not implement this method."""

    code, status, title = "method-not-implemented", 501, "Method not implemented"


class HttpVersionNotSupported(CallerError):
    """505: the HTTP version is not supported. Supported are HTTP/1.0 and HTTP/1.1."""

    code, status, title = "version-not-supported", 505, "HTTP version not supported"


class TooManyRequests(CallerError):
    """429: a rate limit or quota is used up. `Retry-After` says when to try again."""

    code, status, title = "too-many-requests", 429, "Too many requests"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.headers = _retry_after(ceil(retry_after_s) or 1)


class UpstreamError(GatewayError):
    """502 to 504: the backend failed."""

    side = "backend"


class UpstreamUnreachable(UpstreamError):
    """502: no connection to the backend could be opened."""

    code, status, title = "upstream-unreachable", 502, "Backend unreachable"


class BrokenUpstreamResponse(UpstreamError):
    """502: the backend's response is broken. The backend sent invalid HTTP, or broke off a connection that was open."""

    code, status, title = "upstream-broken", 502, "Backend broke off"


class UpstreamUnavailable(UpstreamError):
    """503: no backend can take the request now. Its circuit is open, or the gateway cannot authenticate to it."""

    code, status, title = "upstream-unavailable", 503, "Backend unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 2) -> None:
        super().__init__(detail)
        self.headers = _retry_after(retry_after_s)


class UpstreamTimeout(UpstreamError):
    """504: the backend took too long. The model's time-out is the limit."""

    code, status, title = "upstream-timeout", 504, "Backend too slow"


class DeadlineExceeded(UpstreamError):
    """504: the deadline passed. X-Request-Timeout sets it; so does the model's time-out while a request waits for its turn."""

    code, status, title = "deadline-exceeded", 504, "Deadline exceeded"


class GatewayFault(GatewayError):
    """5xx: the gateway is at fault. It or its operator can fix it."""

    side = "gateway"


class Overloaded(GatewayFault):
    """503: the gateway is overloaded. A concurrency limit and its queue are full."""

    code, status, title = "overloaded", 503, "Overloaded"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.headers = _retry_after(retry_after_s)


class RegistryUnavailable(GatewayFault):
    """503: the registry cannot be read. The answer depends on it."""

    code, status, title = "registry-unavailable", 503, "Registry unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 2) -> None:
        super().__init__(detail)
        self.headers = _retry_after(retry_after_s)


class IssuerUnavailable(GatewayFault):
    """503: the token issuer is not available. Its public keys cannot be fetched."""

    code, status, title = "issuer-unavailable", 503, "Issuer unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 10) -> None:
        super().__init__(detail)
        self.headers = _retry_after(retry_after_s)


class LoopDetected(GatewayFault):
    """508: the request has passed this gateway before (Via)."""

    code, status, title = "loop-detected", 508, "Loop detected"


class InternalError(GatewayFault):
    """500: a bug in the gateway."""

    code, status, title = "internal-error", 500, "Internal error"

    def __init__(self) -> None:
        super().__init__(
            "The gateway failed with an internal error. Its log has the reason under this request's id."
        )
