"""Render a large answer as JSON in pieces: one call of the encoder holds the interpreter until it is done."""

from typing import Any, Final

import msgspec

LARGE_ROWS: Final = 2_000  # from here on not on the event loop
_PIECE_ITEMS: Final = 5_000

_encode = msgspec.json.Encoder().encode


def render_large(answer: Any) -> bytes:
    """The bytes that `msgspec.json.encode(answer)` gives. For a thread of its own."""
    return _encode(_with_long_lists_written(answer))


def _with_long_lists_written(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_long_lists_written(item) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) <= _PIECE_ITEMS:
        return [_with_long_lists_written(item) if isinstance(item, dict) else item for item in value]
    pieces = [_encode(value[at : at + _PIECE_ITEMS])[1:-1] for at in range(0, len(value), _PIECE_ITEMS)]
    return msgspec.Raw(b"[" + b",".join(pieces) + b"]")
