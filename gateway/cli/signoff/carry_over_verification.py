"""Carry a version's verification over to the environment that it is promoted to."""

import msgspec

from gateway.cli.signoff.request_approval import VersionWithEvidence
from gateway.cli.support import console
from gateway.core.model import Model
from gateway.core.version_evidence import VERIFY, backend_predict_url, why_evidence_does_not_apply
from gateway.registry.base import Put, Registry
from gateway.registry.evidence_records import evidence_change, read_evidence
from gateway.settings import Settings


async def carry_over_verification(
    registry: Registry, origin: Settings, source: VersionWithEvidence, model: Model, environment: str
) -> list[Put]:
    """The changes that carry the verification of `source` over to `environment`.

    They write it as evidence about the same version in `model`, at its address there.

    Call it once the backend there has said that it serves that very artifact. Empty where the source's verification does
    not count, where no artifact digest says that the two are the same, or where the backend was verified there: that counts
    more, whatever came of it. Raises RegistryError.
    """
    backend = model.backend(source.backend.version)
    if backend is None or not backend.artifact_digest:
        return []
    known = await read_evidence(registry, model.name, backend.version, VERIFY)
    if known is not None and not why_evidence_does_not_apply(known, backend):
        return []
    async with console.open_guarded_registry(origin) as theirs:
        record = await read_evidence(theirs, model.name, backend.version, VERIFY)
    if record is None or not record.passed or why_evidence_does_not_apply(record, source.backend):
        return []
    carried = msgspec.structs.replace(
        record,
        backend=backend_predict_url(backend),
        summary=f"{record.summary} (in {environment}, of the same artifact)",
    )
    return [await evidence_change(registry, carried)]
