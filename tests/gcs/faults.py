"""Faults on demand: what real networks and services do to a client now and then."""

import re
from typing import Any

import msgspec


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Happens to the next `times` requests whose method and path match. One of the last five says what happens."""

    method: str = ""  # any
    path: str = ""  # a regular expression, searched in path and query
    times: int = 1
    status: int | None = None  # answer this
    delay_s: float = 0.0  # wait before answering
    reset: bool = False  # break the connection
    truncate: int | None = None  # break it after so many bytes of a body, either way
    corrupt: bool = False  # flip a bit of the downloaded body, or of what a resumable upload stores

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in {"", method} and re.search(self.path, path) is not None


class Faults:
    def __init__(self) -> None:
        self._planned: list[Fault] = []

    def plan(self, content: Any) -> None:
        self._planned.append(msgspec.convert(content, Fault))

    def clear(self) -> None:
        self._planned.clear()

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self._planned:
            if fault.matches(method, path):
                fault.times -= 1
                return fault
        return None
