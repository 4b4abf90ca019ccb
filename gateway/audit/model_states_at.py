"""Reconstruct the state of models at a time in the past.

It says which versions served, with which share and evidence. The entries of the registry's history also say who had made it
so.
"""

from datetime import datetime
from typing import Any

import msgspec

from gateway.core.model import Backend
from gateway.core.version_evidence import parse_evidence, why_evidence_does_not_apply
from gateway.registry.base import EVIDENCE, MODELS, Entry, Registry, RegistryError, decode_or_mark_damaged
from gateway.registry.damaged_record_placeholders import is_damaged_entry


class KnownEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """A record of evidence about a version, as it was known then."""

    sort: str
    passed: bool
    summary: str
    problem: str  # why it does not apply to the backend that served; empty where it does
    sequence: int  # of the entry that wrote it
    at: str
    author: str


class ServedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model that took traffic at that time."""

    version: str
    percent: int
    url: str
    artifact: str
    artifact_digest: str
    image: str
    platform: str
    since: Entry  # the entry that first gave this version this very backend
    evidence: tuple[KnownEvidence, ...] = ()


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one model at a time. Without `entry` it was not known yet."""

    name: str
    entry: Entry | None  # the one that was in force
    enabled: bool = False
    served: tuple[ServedVersion, ...] = ()


def parse_time_with_zone(text: str) -> datetime:
    """Parse a time in ISO 8601 that names its time zone, such as 2026-11-20T10:00Z. ValueError says what is wrong."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a time: write it as 2026-11-20T10:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"{text[:40]!r} names no time zone: write it as 2026-11-20T10:00Z, or with +01:00")
    return at


async def model_states_at(registry: Registry, at: datetime, name: str | None = None) -> list[ModelState]:
    """The state of each model at the time `at`.

    They are in the order of their names. With `name`, only of the model of that name. An entry's time is by its writer's
    clock. The last entry, in the order of the chain, that is not younger than `at` counts. Raises RegistryError where an
    entry has no time.
    """
    entries: dict[str, list[Entry]] = {name: []} if name is not None else {}
    evidence: dict[str, Entry] = {}
    async for entry in registry.history_entries_newest_first():
        if is_damaged_entry(entry):
            raise RegistryError(
                f"an entry of the history ({entry.sequence or 'without a number'}) is damaged, so what served then is not "
                "known. `chips audit --verify` shows what was edited"
            )
        if entry.kind == MODELS and (name is None or entry.name == name):
            of_model = entries.setdefault(entry.name, [])
            if of_model or _time_of(entry) <= at:
                of_model.append(entry)
        elif entry.kind == EVIDENCE and entry.name not in evidence and _time_of(entry) <= at:
            evidence[entry.name] = entry
    return [
        _state(each, found, evidence) for each, found in sorted(entries.items()) if found or name is not None
    ]


def _time_of(entry: Entry) -> datetime:
    try:
        return parse_time_with_zone(entry.at)
    except ValueError as error:
        raise RegistryError(
            f"entry {entry.sequence} of the history: {error}. `chips audit --verify` shows what was edited"
        ) from None


def _state(name: str, entries: list[Entry], evidence: dict[str, Entry]) -> ModelState:
    """`entries` from the one in force to the oldest."""
    if not entries:
        return ModelState(name=name, entry=None)
    body = _body(entries[0])
    if body is None:
        return ModelState(name=name, entry=entries[0])
    traffic = body.get("traffic", {})
    if not isinstance(traffic, dict):
        traffic = {}
    served = [
        ServedVersion(
            version=version,
            percent=percent,
            since=_since(entries, version, backend),
            evidence=_evidence(f"{name}@{version}:", backend, evidence),
            **{field: str(backend.get(field, "")) for field in _FIELDS},
        )
        for version, percent in traffic.items()
        if isinstance(percent, int) and percent and (backend := _backend(body, version)) is not None
    ]
    return ModelState(
        name=name, entry=entries[0], enabled=bool(body.get("enabled", True)), served=tuple(served)
    )


def _evidence(prefix: str, backend: dict[str, Any], evidence: dict[str, Entry]) -> tuple[KnownEvidence, ...]:
    found = []
    for name, entry in sorted(evidence.items()):
        body = _body(entry) if name.startswith(prefix) else None
        if body is None:
            continue
        try:
            record = parse_evidence(body)
            problem = why_evidence_does_not_apply(record, msgspec.convert(backend, Backend))
        except ValueError as error:
            passed, summary, problem = False, "", f"it cannot be read: {error}"
        else:
            passed, summary = record.passed, record.summary
        found.append(
            KnownEvidence(
                sort=name.removeprefix(prefix),
                passed=passed,
                summary=summary,
                problem=problem,
                sequence=entry.sequence,
                at=entry.at,
                author=entry.author,
            )
        )
    return tuple(found)


_FIELDS = ("url", "artifact", "artifact_digest", "image", "platform")


def _since(entries: list[Entry], version: str, backend: dict[str, Any]) -> Entry:
    """The oldest entry since which the version was this very backend, without a break."""
    since = entries[0]
    for entry in entries[1:]:
        if _backend(_body(entry) or {}, version) != backend:
            break
        since = entry
    return since


def _body(entry: Entry) -> dict[str, Any] | None:
    if entry.after is None:
        return None
    return decode_or_mark_damaged(entry.kind, entry.name, entry.revision, entry.after).body


def _backend(body: dict[str, Any], version: str) -> dict[str, Any] | None:
    backends = body.get("backends", [])
    if not isinstance(backends, list):
        return None
    return next((one for one in backends if isinstance(one, dict) and one.get("version") == version), None)
