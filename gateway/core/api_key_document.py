"""The registry document of an API key."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from gateway.core.principal import CALLER_VERBS, Verb


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key as the registry keeps it. The registry keeps it under its digest, never itself. Times are RFC 3339 in UTC."""

    label: str
    team: str = ""  # who pays for its calls
    models: tuple[str, ...]  # name patterns as in fnmatch: "*", "wine", "fraud-*"
    verbs: tuple[Verb, ...] = CALLER_VERBS  # what it may do to them
    created: str
    created_by: str = ""
    expires: str | None = None
    revoked: str | None = None
    note: str = ""
    networks: tuple[str, ...] = ()  # a further limit on where from; none: wherever callers are admitted
    requests_per_s: float | None = None
    burst: int | None = None
    max_in_flight: int | None = None
    requests_per_day: int | None = None
    requests_per_month: int | None = None
    replaces: str = ""  # the id of the key that it was made to replace


def parse_key(document: Mapping[str, Any]) -> Key:
    """Parse an API key's registry document. Fields of a newer release are ignored; ValueError says what is wrong."""
    key = msgspec.convert(document, Key)
    if key.expires is not None and datetime.fromisoformat(key.expires).tzinfo is None:
        raise ValueError(f"expires: {key.expires!r} names no time zone")
    return key
