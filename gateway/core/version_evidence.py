"""Records of evidence about a model version.

Each says what was checked, on which artifact and image, and what came of it. A record is bound to what it is about.
Another artifact, image or address is another thing, of which it says nothing.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from gateway.core.model import Backend
from gateway.core.name_validation import check_model_name, check_version
from gateway.core.rollout_document import RolloutPlan

VERIFY: Final = "verify"  # the backend contract, as `chips verify` checks it
CANARY: Final = "canary"  # the verdict of a rollout
SHADOW: Final = "shadow"  # the verdict of a comparison in the shadow
CARD: Final = "card"  # the model card in the artifact

_SORT: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")


class EvidenceRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of evidence about a version.

    It is the document `evidence/MODEL@VERSION:SORT`. The history has when, and who wrote it.
    """

    model: str
    version: str
    sort: str
    passed: bool
    summary: str  # in a line, for people
    backend: str  # address and predict path
    artifact_digest: str = ""
    image: str = ""  # with its digest; empty for a process on this machine
    facts: dict[str, Any] = {}  # the report: counts, findings, intervals; no payload

    @property
    def name(self) -> str:
        return evidence_name(self.model, self.version, self.sort)


def evidence_name(model: str, version: str, sort: str) -> str:
    """The name of an evidence record's registry document: `MODEL@VERSION:SORT`."""
    return f"{model}@{version}:{sort}"


def backend_predict_url(backend: Backend) -> str:
    """The URL of a backend's predict path. An evidence record is bound to it."""
    return f"{backend.url}{backend.predict_path}"


def parse_evidence(document: Mapping[str, Any]) -> EvidenceRecord:
    """Parse an evidence record from its registry document. ValueError says what is wrong with it."""
    try:
        record = msgspec.convert(document, EvidenceRecord)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    check_model_name(record.model)
    check_version(record.version)
    if not _SORT.fullmatch(record.sort):
        raise ValueError(f"{record.sort[:80]!r} is no sort of evidence")
    return record


def why_evidence_does_not_apply(record: EvidenceRecord, backend: Backend) -> str:
    """Why the evidence does not apply to `backend`. Empty where it does."""
    if record.version != backend.version:
        return f"it is about version {record.version}"
    if record.backend != backend_predict_url(backend):
        return f"it is about {record.backend}"
    if record.artifact_digest != backend.artifact_digest:
        return "it is about another artifact"
    if record.image and backend.image and _digest(record.image) != _digest(backend.image):
        return "it is about another image"
    return ""


class SampleSize(NamedTuple):
    """How many requests a verdict rests on, and the fewest that are enough. `least` is how many a step of a rollout asks for."""

    requests: int
    least: int

    @property
    def too_few(self) -> bool:
        return self.requests < self.least

    def __str__(self) -> str:
        few = f": few, since a step of a rollout asks for {self.least}" if self.too_few else ""
        return f"rests on {self.requests} request{'' if self.requests == 1 else 's'}{few}"


def verdict_sample_size(record: Mapping[str, Any]) -> SampleSize | None:
    """How many requests the verdict of an evidence record rests on.

    It is a verdict of a rollout or shadow; None for other evidence, and where `record` does not say. `record` is an
    evidence record as it stands in the registry. The least is what its own rollout asked for at each step, and not less
    than what a rollout asks for where nobody says otherwise.
    """
    facts = record.get("facts")
    if not isinstance(facts, Mapping):
        return None
    match record.get("sort"), facts:
        case (sort, {"errors": {"candidate": [int(requests), *_]}}) if sort == CANARY:
            pass
        case (sort, {"compared": int(requests)}) if sort == SHADOW:
            pass
        case _:
            return None
    asked = facts.get("min_requests")
    default = RolloutPlan().min_requests
    return SampleSize(requests, max(default, asked) if isinstance(asked, int) else default)


def _digest(image: str) -> str:
    """An image may have several names."""
    return image.rpartition("@")[2]
