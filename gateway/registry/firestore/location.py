"""The location of a registry in Firestore, parsed from its URL."""

import os
import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote

_PROJECT = re.compile(r"(?:[a-z0-9.-]{1,63}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_DATABASE = re.compile(r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_EMULATOR = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}")
_FORM = "a Firestore registry is written firestore://PROJECT/DATABASE?prefix=NAME; database and prefix may be left out"


class FirestoreLocation(NamedTuple):
    """The location of a registry in Firestore. It is project, database, collection prefix and emulator host."""

    project: str
    database: str
    prefix: str
    emulator: str  # host:port, or nothing for the cloud

    def __str__(self) -> str:
        at = f" (emulator at {self.emulator})" if self.emulator else ""
        return f"Firestore {self.project}/{self.database}{at}"


def parse_location(parts: SplitResult) -> FirestoreLocation:
    """The location that a registry URL names. ValueError says what is wrong with it."""
    if "@" in parts.netloc:
        raise ValueError(f"{_FORM}; it has no user name or password")
    if parts.fragment:
        raise ValueError(f"{_FORM}; it has no #{parts.fragment[:40]}")
    database = unquote(parts.path.strip("/")) or "(default)"
    try:
        options = (
            dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)) if parts.query else {}
        )
    except ValueError:
        raise ValueError(f"{_FORM}; {parts.query[:80]!r} cannot be read") from None
    unknown = options.keys() - {"prefix", "emulator"}
    if unknown:
        raise ValueError(f"{_FORM}; it takes no option {sorted(unknown)[0][:40]!r}")
    # Every client of Google's reads this variable, so an emulator that is set up for one is there for all.
    emulator = options.get("emulator") or os.environ.get("FIRESTORE_EMULATOR_HOST", "")  # noqa: TID251
    location = FirestoreLocation(unquote(parts.netloc), database, options.get("prefix", "chips"), emulator)
    for pattern, value, what in (
        (_PROJECT, location.project, "project"),
        (_DATABASE, location.database, "database"),
        (_PREFIX, location.prefix, "prefix"),
        (_EMULATOR, location.emulator or "none:1", "emulator's address"),
    ):
        if not pattern.fullmatch(value):
            raise ValueError(f"{_FORM}; {value[:80]!r} cannot be a {what}")
    return location
