"""Read and write evidence about versions in the registry."""

from gateway.core.model import Backend
from gateway.core.model_updates import to_document
from gateway.core.version_evidence import (
    VERIFY,
    EvidenceRecord,
    evidence_name,
    parse_evidence,
    why_evidence_does_not_apply,
)
from gateway.registry.base import EVIDENCE, Put, Registry


async def evidence_change(registry: Registry, record: EvidenceRecord) -> Put:
    """The change that writes an evidence record.

    It takes the place of the earlier record of its sort. Write it together with what it is about.
    """
    known = await registry.read(EVIDENCE, record.name)
    expected = known.revision if known is not None else 0
    return Put(kind=EVIDENCE, name=record.name, body=to_document(record), expected=expected)


async def read_evidence(registry: Registry, model: str, version: str, sort: str) -> EvidenceRecord | None:
    """Read a version's evidence of one sort. None where there is none, or none that can be read. Raises RegistryError."""
    document = await registry.read(EVIDENCE, evidence_name(model, version, sort))
    if document is None or document.problem:
        return None
    try:
        return parse_evidence(document.body)
    except ValueError:
        return None


async def list_evidence(registry: Registry, model: str, version: str) -> list[EvidenceRecord]:
    """All readable records of a version, by sort. Raises RegistryError."""
    found = []
    for document in await registry.list(EVIDENCE):
        if document.name.startswith(evidence_name(model, version, "")) and not document.problem:
            try:
                found.append(parse_evidence(document.body))
            except ValueError:
                continue
    return found


async def image_bound_to_evidence(registry: Registry, model: str, backend: Backend) -> str:
    """The image that evidence about `backend` is bound to.

    It is the registered one, or the one that its verification found. Raises RegistryError.
    """
    if backend.image:
        return backend.image
    verified = await read_evidence(registry, model, backend.version, VERIFY)
    if verified is None or why_evidence_does_not_apply(verified, backend):
        return ""
    return verified.image
