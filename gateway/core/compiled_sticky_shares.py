"""Compile a model's sticky shares into a chooser of versions. It gives the same caller the same version each time."""

from hashlib import blake2b
from typing import TypeAlias

from gateway.core.model import Backend, Model
from gateway.core.sticky_shares import (
    HASH_BYTES,
    SLOTS,
    StickyShares,
    assign_slots,
    parse_sticky_by,
    slots_in,
)

UnitHash: TypeAlias = str  # 16 hexadecimal digits


class StickyVersionChooser:
    """Chooses a version so that the same value gets the same version each time.

    It chooses by a hash of the model's name and the value.
    """

    __slots__ = ("_backends", "_hash", "by")

    def __init__(self, sticky: StickyShares, model: Model) -> None:
        self.by = parse_sticky_by(sticky.by)
        # The model's name is part of what is hashed: the first callers of one model must not be the first of all its copies.
        self._hash = blake2b(digest_size=HASH_BYTES, key=bytes.fromhex(sticky.seed))
        self._hash.update(f"value\0{model.name}\0".encode())
        laid_out = assign_slots(sticky, model.traffic).slots
        by_version = {backend.version: backend for backend in model.backends}
        owners = {slot: by_version[v] for v, bitmap in laid_out.items() for slot in slots_in(bitmap)}
        self._backends: tuple[Backend, ...] = tuple(owners[slot] for slot in sorted(owners))

    def choose(self, value: bytes) -> tuple[Backend, UnitHash]:
        """Choose the backend for `value`. Also returns the hash of `value`, which is the unit in logs."""
        hashed = self._hash.copy()
        hashed.update(value)
        digest = hashed.digest()
        # The number lies in [0, 2**64): the product's upper part is uniform on the slots.
        slot = int.from_bytes(digest) * SLOTS >> (8 * HASH_BYTES)
        return self._backends[slot], digest.hex()


def compile_sticky(model: Model) -> StickyVersionChooser | None:
    """Compile a model's sticky shares into a chooser. Returns None where it has none, or no version to choose."""
    if model.sticky is None or not any(model.traffic.values()):
        return None
    return StickyVersionChooser(model.sticky, model)
