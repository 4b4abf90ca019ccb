"""Validate the names of models, versions and teams.

A model's name is the first segment of the address that callers use, so it is a lower-case DNS-like label: it needs
no escaping in a URL, a file name, a metric label or a Firestore document id, and two names never differ by case alone.
"""

import re

_MODEL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
# As in fnmatch, over the characters that a name may hold; what stands in brackets is a set of them.
_MODEL_PATTERN = re.compile(r"(?:[a-z0-9_*?-]|\[!?\]?[^\]]*\])+")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

RESERVED_MODEL_NAMES = frozenset({"v2"})  # /v2/ is the root of the Open Inference Protocol


def check_model_name(name: str) -> str:
    """Check a model's name and return it. ValueError says what a name may look like."""
    if name in RESERVED_MODEL_NAMES:
        raise ValueError(f'"{name}" is reserved: /{name}/ belongs to the Open Inference Protocol')
    if not _MODEL_NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} cannot be a model's name: use 1 to 63 of a-z, 0-9, - and _, "
            "beginning and ending with a letter or digit"
        )
    return name


def check_model_glob(pattern: str) -> str:
    """Check a glob of model names (as in fnmatch) and return it. ValueError where no model's name could match it."""
    if not _MODEL_PATTERN.fullmatch(pattern):
        raise ValueError(
            f"{pattern[:80]!r} matches no model's name: use a name such as wine, or a pattern such as fraud-* or *"
        )
    return pattern


def check_team(team: str) -> str:
    """Check a team's name and return it. ValueError says what a name may look like. It is written as models' names are."""
    if not _MODEL_NAME.fullmatch(team):
        raise ValueError(
            f"{team[:80]!r} cannot be a team's name: use 1 to 63 of a-z, 0-9, - and _, beginning and ending with a letter or digit"
        )
    return team


def check_version(version: str) -> str:
    """Check a version's name and return it. ValueError says what a version may look like."""
    if not _VERSION.fullmatch(version):
        raise ValueError(
            f"{version[:80]!r} cannot be a version: use 1 to 64 of A-Z, a-z, 0-9, '.', - and _, "
            "beginning with a letter or digit"
        )
    return version
