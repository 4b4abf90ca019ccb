"""A bounded cache whose entries expire. Authenticators keep verified credentials in it."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class TtlCache(Generic[Value]):
    """A bounded mapping whose entries expire. It holds at most `size` entries: when it is full, the older half is removed."""

    __slots__ = ("_entries", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[Hashable, tuple[Value, float]] = {}

    def get(self, key: Hashable, now: float) -> Value | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until = entry
        if now < until:
            return value
        self._entries.pop(key, None)
        return None

    def put(self, key: Hashable, value: Value, until: float) -> None:
        entries = self._entries
        if len(entries) >= self._size and key not in entries:
            self._entries = entries = dict(list(entries.items())[len(entries) // 2 :])
        entries[key] = (value, until)

    def forget(self, key: Hashable) -> None:
        self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)
