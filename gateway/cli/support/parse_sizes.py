"""Parse sizes and instance resources given as options.

A size is in bytes, such as 512Mi; the resources are CPU, memory and the minimum of instances.
"""

import re
from typing import Any, Final

from gateway.cli.support.console import EX_USAGE, Failure

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi)?")
_UNITS: Final = {"": 1.0, "Ki": 1024.0, "Mi": 1024.0**2, "Gi": 1024.0**3}
GIB: Final = _UNITS["Gi"]


def parse_bytes(text: str) -> float:
    """Parse a size such as 512Mi into bytes. Raises Failure."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Failure(f"{text!r} is not a size", hint="such as 512Mi or 2Gi", code=EX_USAGE)
    return float(match[1]) * _UNITS[match[2] or ""]


def given_resources(
    cpu: float | None, memory: str | None, min_instances: int | None
) -> dict[str, Any] | None:
    """The resources of an instance that options gave.

    They are fields of `Resources`; None where none was given. Raises Failure.
    """
    memory_gib = None if memory is None else parse_bytes(memory) / GIB
    fields = {"cpu": cpu, "memory_gib": memory_gib, "min_instances": min_instances}
    return {name: value for name, value in fields.items() if value is not None} or None
