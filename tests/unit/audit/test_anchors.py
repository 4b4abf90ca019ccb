"""Heads in a second place: signed, created once, and what they show of a history that was cut off or rewritten."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.audit.anchor_store import BucketAnchorStore, FolderAnchorStore, open_anchor_store
from gateway.audit.anchors import HEAD_TYPE, read_anchors, write_anchor, write_restore_note
from gateway.audit.dsse_envelope import (
    SigningError,
    parse_unverified_envelope,
    read_public_key,
    read_signer,
    sign,
    verified_by,
)
from gateway.audit.periodic_anchoring import PeriodicAnchoring
from gateway.audit.verify_history import verify_history
from gateway.registry.base import MODELS, Put, Registry, RegistryError, Unavailable
from gateway.registry.memory import MemoryRegistry, SharedStore
from gateway.thread_and_task_supervisor import Supervisor


def write_key(path: Path, key=None) -> Path:
    key = key or Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "head.pem")


async def put(registry: Registry, *names: str) -> None:
    for name in names:
        await registry.write(Put(kind=MODELS, name=name, body={}, expected=0), author="ana")


@pytest.mark.parametrize("make", [Ed25519PrivateKey.generate, lambda: generate_private_key(SECP256R1())])
def test_a_signature_holds_for_its_payload_and_its_key_alone(tmp_path: Path, make):
    signer = read_signer(write_key(tmp_path / "a.pem", make()))
    mine, other = read_public_key(tmp_path / "a.pub"), read_signer(write_key(tmp_path / "b.pem")).public_key
    content = sign({"n": 1}, HEAD_TYPE, signer)
    envelope = parse_unverified_envelope(content)
    assert msgspec.json.decode(envelope.payload) == {"n": 1}
    assert verified_by(envelope, [other, mine]) == {mine.keyid}
    assert verified_by(envelope, [other]) == frozenset()
    swapped = msgspec.json.decode(sign({"n": 2}, HEAD_TYPE, signer))
    swapped["signatures"] = msgspec.json.decode(content)["signatures"]
    for changed in (content.replace(b"registry-head", b"registry-hood"), msgspec.json.encode(swapped)):
        assert verified_by(parse_unverified_envelope(changed), [mine]) == frozenset()


def test_a_key_that_cannot_be_used_is_told_without_its_content(tmp_path: Path):
    secret = tmp_path / "secret.pem"
    secret.write_text("not a key: hunter2")
    for path in (
        secret,
        tmp_path / "none.pem",
        write_key(tmp_path / "p384.pem", generate_private_key(SECP384R1())),
    ):
        with pytest.raises(SigningError, match="openssl genpkey -algorithm ed25519") as caught:
            read_signer(path)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(SigningError, match="openssl pkey"):
        read_public_key(secret)
    for content in (b"{", b"[]", b'{"payload": 1}', b'{"payload":"","payloadType":"x","signatures":[{}]}'):
        with pytest.raises(SigningError, match="not a DSSE envelope"):
            parse_unverified_envelope(content)


async def test_a_head_is_kept_once(tmp_path: Path, key: Path):
    place, registry, signer = FolderAnchorStore(tmp_path / "kept"), MemoryRegistry(), read_signer(key)
    assert await write_anchor(place, registry, signer) is None
    await put(registry, "wine")
    first = await write_anchor(place, registry, signer)
    assert first is not None
    assert first.sequence == 1
    (name,) = await place.read_all()
    assert name == f"{first.registry_id}/000000000001-{first.digest[:16]}.json"
    before = await place.read_all()
    await write_anchor(place, registry, signer)
    assert await place.read_all() == before
    assert not await place.create(name, b"another")
    anchors = await read_anchors(place, [signer.public_key])
    assert (anchors.heads, anchors.findings) == ((first,), ())


@pytest.mark.parametrize(
    "change",
    [
        {"registry_id": "../outside"},
        {"registry_id": "/outside"},
        {"registry_id": "."},
        {"registry_id": "a\n"},
        {"digest": "../../../outside"},
        {"digest": ""},
    ],
)
async def test_an_edited_head_leads_nowhere_else(tmp_path: Path, key: Path, change: dict[str, str]):
    place, store = FolderAnchorStore(tmp_path / "in" / "kept"), SharedStore()
    await put(MemoryRegistry(store), "wine")
    store.head = msgspec.structs.replace(store.head, **change)
    with pytest.raises(RegistryError, match="shows what was edited"):
        await write_anchor(place, MemoryRegistry(store), read_signer(key))
    assert not (tmp_path / "in").exists()


async def test_what_was_cut_off_or_rewritten_does_not_fit_the_kept_heads(tmp_path: Path, key: Path):
    place, signer = FolderAnchorStore(tmp_path / "kept"), read_signer(key)
    store = SharedStore()
    registry = MemoryRegistry(store)
    await put(registry, "wine")
    store_before = (store.head, list(store.entries), dict(store.documents))
    await put(registry, "beer")
    await write_anchor(place, registry, signer)
    heads = (await read_anchors(place, [signer.public_key])).heads
    assert (await verify_history(registry, heads)).findings == ()
    store.head, store.entries, store.documents = store_before
    (finding,) = (await verify_history(registry, heads)).findings
    assert "the history ends with entry 1; on " in finding.text
    await put(registry, "tea")
    (finding,) = (await verify_history(registry, heads)).findings
    assert "entry 2 is not the one that was there on " in finding.text
    other = MemoryRegistry()
    await put(other, "wine", "beer")
    (finding,) = (await verify_history(other, heads)).findings
    assert "the second place knows the registry" in finding.text
    await write_anchor(place, other, signer)
    heads = (await read_anchors(place, [signer.public_key])).heads
    report = await verify_history(other, heads)
    assert (report.findings, report.anchors, report.anchored) == ((), 1, 2), "two may share a second place"


async def test_a_restore_is_noted_in_the_second_place(tmp_path: Path, key: Path):
    place, signer = FolderAnchorStore(tmp_path / "kept"), read_signer(key)
    keys = [signer.public_key]
    store = SharedStore()
    registry = MemoryRegistry(store)
    await put(registry, "wine")
    await write_anchor(place, registry, signer)
    backup = (store.head, list(store.entries), dict(store.documents))
    await put(registry, "beer")
    await write_anchor(place, registry, signer)
    with pytest.raises(RegistryError, match="nothing is lost"):
        await write_restore_note(place, registry, signer, keys, by="ana", reason="drill")
    store.head, store.entries, store.documents = backup
    note = await write_restore_note(place, registry, signer, keys, by="ana", reason="the disk broke")
    assert [sequence for sequence, _ in note.lost] == [2]
    await put(registry, "tea", "mate")
    anchors = await read_anchors(place, keys)
    assert [one.reason for one in anchors.restored] == ["the disk broke"]
    assert (await verify_history(registry, anchors.heads)).findings == ()
    store.entries[0] = msgspec.structs.replace(store.entries[0], author="mallory")
    assert (await verify_history(registry, anchors.heads)).findings
    # A note that somebody else has signed excuses nothing.
    forger = read_signer(write_key(tmp_path / "forger.pem"))
    store.head, store.entries, store.documents = backup
    folder = tmp_path / "kept" / note.registry_id
    (noted,) = folder.glob("restored-*")
    noted.write_bytes(sign(note, "application/vnd.chips.registry-restored.v1+json", forger))
    anchors = await read_anchors(place, keys)
    assert "none of the keys in audit.trusted_keys" in anchors.findings[0].text
    assert any(
        "history ends with entry 1" in f.text
        for f in (await verify_history(registry, anchors.heads)).findings
    )


async def test_what_lies_there_and_is_no_head_is_a_finding(tmp_path: Path, key: Path):
    place, signer = FolderAnchorStore(tmp_path / "kept"), read_signer(key)
    await place.create("r1/1.json", b"{")
    await place.create("r1/2.json", sign({"n": 1}, "text/plain", signer))
    await place.create("r1/3.json", sign({"n": 1}, HEAD_TYPE, signer))
    anchors = await read_anchors(place, [signer.public_key])
    assert anchors.heads == ()
    texts = [finding.text for finding in anchors.findings]
    assert [text.partition(" in the second place: ")[0] for text in texts] == [
        "r1/1.json",
        "r1/2.json",
        "r1/3.json",
    ]
    assert "not a DSSE envelope" in texts[0]
    assert "'text/plain', which is not known" in texts[1]
    assert "cannot be read" in texts[2]


def test_a_second_place_is_a_folder_or_a_bucket(tmp_path: Path):
    assert str(open_anchor_store("gs://b/x/")) == "gs://b/x"
    assert isinstance(open_anchor_store("gs://b"), BucketAnchorStore)
    assert (
        str(open_anchor_store(str(tmp_path))) == str(open_anchor_store(f"file:{tmp_path}")) == str(tmp_path)
    )
    for wrong in ("gs://", "s3://bucket", "gs://b?x=1", "file:"):
        with pytest.raises(ValueError, match="gs://bucket/prefix"):
            open_anchor_store(wrong)


async def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        await FolderAnchorStore(tmp_path / "file").create("r/1.json", b"")


async def test_a_gateway_keeps_the_head_where_it_has_changed(tmp_path: Path, key: Path):
    place, registry = FolderAnchorStore(tmp_path / "kept"), MemoryRegistry()
    clock = [1000.0]
    anchoring = PeriodicAnchoring(
        registry, place, key, every_s=600, supervisor=Supervisor(), now=lambda: clock[0]
    )
    clock[0] += 7
    assert anchoring.lag_gauge() == {"chips_audit_unanchored_seconds": {"": 7.0}}
    assert not await anchoring.anchor_if_new()
    await put(registry, "wine")
    assert await anchoring.anchor_if_new()
    assert not await anchoring.anchor_if_new()
    assert anchoring.lag_gauge() == {"chips_audit_unanchored_seconds": {"": 0.0}}
    (tmp_path / "kept").rename(tmp_path / "away")
    (tmp_path / "kept").write_text("")
    await put(registry, "beer")
    with pytest.raises(Unavailable):
        await anchoring.anchor_if_new()
    clock[0] += 30
    assert anchoring.lag_gauge() == {"chips_audit_unanchored_seconds": {"": 30.0}}
    (tmp_path / "kept").unlink()
    assert await anchoring.anchor_if_new()
    assert len(await place.read_all()) == 1


async def test_its_task_keeps_it_by_itself(tmp_path: Path, key: Path):
    place, registry = FolderAnchorStore(tmp_path / "kept"), MemoryRegistry()
    await put(registry, "wine")
    anchoring = PeriodicAnchoring(registry, place, key, every_s=0.01, supervisor=Supervisor())
    await anchoring.start()
    while not await place.read_all():  # the test's own time-out ends a wait that is too long
        await asyncio.sleep(0.01)
    await anchoring.stop()
