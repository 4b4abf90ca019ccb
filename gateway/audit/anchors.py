"""Write and read anchors: signed heads of a registry's history.

They are kept in a store apart from the registry:

    REGISTRY_ID/000000000042-0123456789abcdef.json            the head after entry 42
    REGISTRY_ID/restored-000000000040-fedcba9876543210.json   the registry was restored, and its head was entry 40

Each is a DSSE envelope. A restored backup has lost entries that anchors know: a signed note names those anchors, with a
reason. The note is in that store, so that the database alone cannot excuse a history that was cut off.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key, Signer

from gateway.audit.anchor_store import AnchorStore
from gateway.audit.dsse_envelope import SigningError, parse_unverified_envelope, sign, verified_by
from gateway.audit.verify_history import AnchoredHead, Finding
from gateway.registry.base import Head, Registry, RegistryError, now_rfc3339

HEAD_TYPE: Final = "application/vnd.chips.registry-head.v1+json"
RESTORED_TYPE: Final = "application/vnd.chips.registry-restored.v1+json"
_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class RestoreNote(msgspec.Struct, frozen=True, kw_only=True):
    """A note that a registry was restored from a backup. It names the anchored heads that the registry has lost."""

    registry_id: str
    generation: int
    sequence: int  # the head after the restore
    digest: str
    lost: tuple[tuple[int, str], ...]  # sequence and digest of the heads that are no longer in the chain
    at: str
    by: str
    reason: str

    def head(self) -> AnchoredHead:
        return AnchoredHead(
            registry_id=self.registry_id,
            generation=self.generation,
            sequence=self.sequence,
            digest=self.digest,
            at=self.at,
        )


class AnchorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the anchors in a store say. It holds the anchors that a known key has signed, and what is wrong with the rest."""

    heads: tuple[AnchoredHead, ...]  # those that a restore has lost left out
    restored: tuple[RestoreNote, ...]
    findings: tuple[Finding, ...]


async def write_anchor(store: AnchorStore, registry: Registry, signer: Signer) -> AnchoredHead | None:
    """Write a signed anchor of the registry's present head.

    The anchor is kept in `store`. Returns the head, also where its anchor is there already; None where the history has no
    head yet. Raises RegistryError.
    """
    head = await registry.head()
    if not head.sequence or head.digest is None:
        return None
    anchored = _anchored(head)
    content = sign(anchored, HEAD_TYPE, signer)
    await store.create(_name(head), content)
    return anchored


async def read_anchors(store: AnchorStore, keys: Sequence[Key]) -> AnchorReport:
    """Read the anchors in `store`, and verify their signatures.

    Those that one of `keys` has signed are anchors; the others become findings. Raises RegistryError.
    """
    heads: list[AnchoredHead] = []
    restored: list[RestoreNote] = []
    findings: list[Finding] = []
    for name, content in (await store.read_all()).items():
        try:
            found = _read(content, keys)
        except SigningError as error:
            findings.append(
                Finding(what="anchor", sequence=None, text=f"{name} in the second place: {error}")
            )
            continue
        if isinstance(found, RestoreNote):
            restored.append(found)
        else:
            heads.append(found)
    lost = {(one.registry_id, *pair) for one in restored for pair in one.lost}
    heads += [one.head() for one in restored]
    kept = [head for head in heads if (head.registry_id, head.sequence, head.digest) not in lost]
    return AnchorReport(heads=tuple(kept), restored=tuple(restored), findings=tuple(findings))


async def write_restore_note(
    store: AnchorStore, registry: Registry, signer: Signer, keys: Sequence[Key], *, by: str, reason: str
) -> RestoreNote:
    """Write a signed note that the registry was restored.

    After a restore from a backup, anchors that are not in its chain are lost. Raises RegistryError where no anchor is
    lost.
    """
    anchors = await read_anchors(store, keys)
    digests = {entry.sequence: entry.digest async for entry in registry.history_entries_newest_first()}
    head = await registry.head()
    lost = tuple(
        sorted(
            {
                (anchor.sequence, anchor.digest)
                for anchor in anchors.heads
                if anchor.registry_id == head.registry_id and digests.get(anchor.sequence) != anchor.digest
            }
        )
    )
    if not lost:
        raise RegistryError(
            "every head in the second place is in this history: nothing is lost, and nothing is to note"
        )
    anchored = _anchored(head)
    note = RestoreNote(
        registry_id=head.registry_id,
        generation=head.generation,
        sequence=head.sequence,
        digest=anchored.digest,
        lost=lost,
        at=now_rfc3339(),
        by=by,
        reason=reason,
    )
    name = _name(head, "restored-")
    if not await store.create(name, sign(note, RESTORED_TYPE, signer)):
        raise RegistryError(f"{name} is there already: this restore is noted")
    return note


def _anchored(head: Head) -> AnchoredHead:
    return AnchoredHead(
        registry_id=head.registry_id,
        generation=head.generation,
        sequence=head.sequence,
        digest=head.digest or "",
        at=now_rfc3339(),
    )


def _name(head: Head, prefix: str = "") -> str:
    """Somebody who may write the database chooses id and digest: they must not lead out of the store."""
    digest = head.digest or ""
    if not _ID.fullmatch(head.registry_id) or not _DIGEST.fullmatch(digest):
        raise RegistryError(
            f"the head {digest[:80]!r} of the registry {head.registry_id[:80]!r} is none: `chips audit --verify` "
            "shows what was edited"
        )
    return f"{head.registry_id}/{prefix}{head.sequence:012d}-{digest[:16]}.json"


def _read(content: bytes, keys: Sequence[Key]) -> AnchoredHead | RestoreNote:
    envelope: Envelope = parse_unverified_envelope(content)
    if not verified_by(envelope, keys):
        raise SigningError("none of the keys in audit.trusted_keys has signed it")
    struct = {HEAD_TYPE: AnchoredHead, RESTORED_TYPE: RestoreNote}.get(envelope.payload_type)
    if struct is None:
        raise SigningError(f"its payload is of the type {envelope.payload_type!r}, which is not known")
    try:
        found: AnchoredHead | RestoreNote = msgspec.json.decode(envelope.payload, type=struct)
    except msgspec.MsgspecError as error:
        raise SigningError(f"its payload cannot be read: {error}") from None
    return found
