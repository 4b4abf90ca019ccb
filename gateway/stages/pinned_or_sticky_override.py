"""Replace the version drawn by weight with the one that the caller pins, or that its sticky share gives.

`RouteToBackend` has drawn it. It stays where nothing is pinned and the request has no value to stick to.
"""

import msgspec

from gateway.core.errors import BadRequest, Forbidden, ModelNotFound
from gateway.core.exchange import BUFFERED_BODY_BYTES, Exchange
from gateway.core.header_classification import PINNED_VERSION, position_in_read_fields
from gateway.core.principal import ANONYMOUS, PIN
from gateway.core.sticky_shares import StickyBy

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_scalar = msgspec.json.Decoder(str | int | float | bool).decode
_MAX_INDEX_DIGITS = 4


class PinnedOrStickyOverride:
    """Replace the version drawn by weight with the pinned or the sticky one, where there is one.

    X-Chips-Version pins it; it is sticky where the model's shares are.
    """

    def __call__(self, exchange: Exchange) -> None:
        """Raises Forbidden, ModelNotFound or BadRequest for a pin that cannot be honored: it is never ignored."""
        pinned = exchange.head.read[PINNED_VERSION]
        if pinned is not None:
            _pin(exchange, pinned.decode("latin-1"))
            return
        sticky = exchange.sticky
        if sticky is None or exchange.target.version is not None:
            return
        value = _value_of(exchange, sticky.by)
        if value:
            exchange.backend, exchange.unit = sticky.choose(value)
            exchange.assigned = "sticky"


def _pin(exchange: Exchange, version: str) -> None:
    model, asked = exchange.model, exchange.target.version
    if not exchange.principal.may(PIN, model.name):
        raise Forbidden(
            "Your credentials do not allow you to choose a version with X-Chips-Version. "
            "Leave the header out, or ask for a key with the verb pin."
        )
    if asked is not None and asked != version:
        raise BadRequest(
            f"The path asks for version {asked}, X-Chips-Version for another one. Send one of them."
        )
    backend = model.backend(version)
    if backend is None:
        raise ModelNotFound(f'The model "{model.name}" has no version {version[:80]}.')
    exchange.backend = backend
    exchange.assigned = "pin"


def _value_of(exchange: Exchange, by: StickyBy) -> bytes | None:
    """What the share sticks to; None or empty where the request does not have it."""
    principal = exchange.principal
    if by.kind == "header":
        return _header(exchange, by.name.encode("ascii"))
    if by.kind == "field":
        return _field(exchange, by.name.split("."))
    if principal is ANONYMOUS:
        return None
    # A key that replaces another one has its label, so its caller stays where it is.
    name = principal.id if by.kind == "key" else principal.label or principal.id
    return name.encode("utf-8", "surrogateescape")


def _header(exchange: Exchange, name: bytes) -> bytes | None:
    index = position_in_read_fields(name)
    if index >= 0:
        return exchange.head.read[index]
    # RFC 9110 section 5.3: several field lines are one value.
    return b", ".join(value for field, value in exchange.headers if field.lower() == name)


def _field(exchange: Exchange, path: list[str]) -> bytes | None:
    """The value at `path` in a JSON body that is small, whatever its Content-Type says."""
    body = exchange.body
    # A larger one may be complete or not, by the chance of its arrival: the version must not depend on that.
    if not body.complete or not 0 < len(whole := body.buffered_body()) < BUFFERED_BODY_BYTES:
        return None
    value = whole
    try:
        for step in path:
            if value.lstrip().startswith(b"["):
                value = bytes(_decode_list(value)[_index(step)])
            else:
                value = bytes(_decode_object(value)[step])
        return _text(_decode_scalar(value)).encode("utf-8", "surrogatepass")
    except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
        return None


def _index(step: str) -> int:
    if not step.isascii() or not step.isdigit() or len(step) > _MAX_INDEX_DIGITS:
        raise LookupError(step)
    return int(step)


def _text(value: object) -> str:
    """One text for a value however it is written: 17, 17.0 and "17" are the same customer."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
