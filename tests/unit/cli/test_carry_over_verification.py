"""The verification of qa in prod: of the same artifact only, and never in the place of what prod found itself."""

from pathlib import Path

import msgspec
import pytest

from gateway.cli.signoff.carry_over_verification import carry_over_verification
from gateway.cli.signoff.request_approval import VersionWithEvidence
from gateway.cli.support.check_evidence_before_traffic import why_unverified
from gateway.core.model import Backend, Model
from gateway.core.version_evidence import VERIFY, EvidenceRecord, backend_predict_url, parse_evidence
from gateway.registry.base import Put, Registry
from gateway.registry.evidence_records import evidence_change
from gateway.registry.memory import MemoryRegistry, SharedStore
from gateway.registry.sqlite import SqliteRegistry
from gateway.settings import Settings, load_settings

_DIGEST = "sha256:" + "a" * 64
_QA = Backend(version="4", url="http://qa", artifact_digest=_DIGEST)
_PROD = msgspec.structs.replace(_QA, url="http://prod")


def _record(backend: Backend, *, passed: bool = True) -> EvidenceRecord:
    return EvidenceRecord(
        model="wine",
        version="4",
        sort=VERIFY,
        passed=passed,
        summary="28 checks passed" if passed else "2 checks failed",
        backend=backend_predict_url(backend),
        artifact_digest=backend.artifact_digest,
    )


async def _keep(registry: Registry, record: EvidenceRecord) -> None:
    await registry.write(await evidence_change(registry, record), author="ana")


async def _carried(
    folder: Path, prod: Registry, record: EvidenceRecord | None, source: Backend = _QA
) -> list[Put]:
    """What is carried to prod where qa holds `record`."""
    qa = SqliteRegistry(folder / "qa.db")
    if record is not None:
        await _keep(qa, record)
    await qa.close()
    origin: Settings = load_settings(flags={"registry": f"sqlite://{folder}/qa.db"}, environ={})
    model = Model(name="wine", backends=(source,), traffic={"4": 100})
    target = Model(
        name="wine", backends=(msgspec.structs.replace(source, url="http://prod"),), traffic={"4": 100}
    )
    return await carry_over_verification(prod, origin, VersionWithEvidence(model, source, {}), target, "qa")


@pytest.fixture
def prod() -> Registry:
    return MemoryRegistry(SharedStore())


async def test_the_same_artifact_is_verified_in_prod_as_well(tmp_path: Path, prod: Registry):
    (change,) = await _carried(tmp_path, prod, _record(_QA))
    assert parse_evidence(change.body).summary == "28 checks passed (in qa, of the same artifact)"
    await prod.write(change, author="ana")
    assert await why_unverified(prod, "wine", _PROD) == ""
    assert (
        await why_unverified(prod, "wine", msgspec.structs.replace(_PROD, artifact_digest="sha256:b")) != ""
    )


@pytest.mark.parametrize(
    ("record", "source"),
    [
        (None, _QA),
        (_record(_QA, passed=False), _QA),
        (_record(msgspec.structs.replace(_QA, url="http://elsewhere")), _QA),
        (_record(msgspec.structs.replace(_QA, artifact_digest="sha256:b")), _QA),
        (
            _record(msgspec.structs.replace(_QA, artifact_digest="")),
            msgspec.structs.replace(_QA, artifact_digest=""),
        ),
    ],
    ids=["none", "failed", "of another address", "of another artifact", "of no artifact"],
)
async def test_what_does_not_count_in_qa_is_not_carried(
    tmp_path: Path, prod: Registry, record: EvidenceRecord | None, source: Backend
):
    assert await _carried(tmp_path, prod, record, source) == []


async def test_what_prod_found_itself_stays(tmp_path: Path, prod: Registry):
    await _keep(prod, _record(_PROD, passed=False))
    assert await _carried(tmp_path, prod, _record(_QA)) == []
    assert "2 checks failed" in await why_unverified(prod, "wine", _PROD)
