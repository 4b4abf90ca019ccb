"""An answer that the gateway makes itself, whole and small: a problem, a health probe, a model's description."""

from typing import Any, NamedTuple

import msgspec

HeaderList = tuple[tuple[bytes, bytes], ...]


class Answer(NamedTuple):
    status: int
    headers: HeaderList  # without Content-Length, which the server writes
    body: bytes


_JSON: HeaderList = ((b"Content-Type", b"application/json"),)


def json_answer(content: Any, *, status: int = 200, headers: HeaderList = ()) -> Answer:
    return Answer(status, _JSON + headers, msgspec.json.encode(content) + b"\n")
