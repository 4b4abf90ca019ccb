"""Sticky shares of traffic: the same caller gets the same version.

That holds for as long as the shares allow it. A share is a number of 100 slots. A value (a caller's name, a header field, …)
is hashed to a slot, and the model's document says which version owns each slot. When shares change, only as many slots
change hands as the change needs: no version that grows loses a slot, and none that shrinks gains one. docs/adr on sticky
shares says why it is this way.
"""

import re
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

import msgspec

SLOTS: Final = 100  # as traffic is given in whole percent
HASH_BYTES: Final = 8
_BITMAP_DIGITS: Final = SLOTS // 4
_SEED: Final = re.compile(r"[0-9a-f]{32}")
_BITMAP: Final = re.compile(rf"[0-9a-f]{{{_BITMAP_DIGITS}}}")
_HEADER: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110 section 5.6.2
_FIELD: Final = re.compile(r"[^.\x00-\x1f\x7f]{1,64}(?:\.[^.\x00-\x1f\x7f]{1,64}){0,7}")


class StickyBy(NamedTuple):
    """What a share sticks to: a kind of value, and its name. The kinds are `caller`, `key`, `header:NAME` and `field:PATH` (of the request's JSON)."""

    kind: Literal["caller", "key", "header", "field"]
    name: str = ""  # of the header field in lower case, or the path in the body with dots


class StickyShares(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The sticky shares of a model: which version owns which slots. The model's document keeps them."""

    by: str
    seed: str  # 32 hexadecimal digits: the key of the hash, the same at every gateway
    slots: dict[str, str] = {}  # by version: 25 hexadecimal digits, a bit for each slot, the first one lowest


def parse_sticky_by(text: str) -> StickyBy:
    """Parse what a share sticks to. It is `caller`, `key`, `header:NAME` or `field:PATH`. ValueError says what is wrong."""
    kind, colon, name = text.partition(":")
    if kind == "caller" and not colon:
        return StickyBy("caller")
    if kind == "key" and not colon:
        return StickyBy("key")
    if kind == "header" and _HEADER.fullmatch(name.lower()):
        return StickyBy("header", name.lower())
    if kind == "field" and _FIELD.fullmatch(name):
        return StickyBy("field", name)
    raise ValueError(
        f"{text[:80]!r} is nothing that a share can stick to: write caller, key, header:NAME or field:NAME"
    )


def sticky_problems(sticky: StickyShares) -> list[str]:
    """Everything that is wrong with `sticky`, a sentence each."""
    problems = []
    try:
        parse_sticky_by(sticky.by)
    except ValueError as error:
        problems.append(str(error))
    if not _SEED.fullmatch(sticky.seed):
        problems.append("the seed of sticky shares must be 32 hexadecimal digits")
    problems += [
        f"the slots of version {version[:80]} must be {_BITMAP_DIGITS} hexadecimal digits"
        for version, bitmap in sticky.slots.items()
        if not _BITMAP.fullmatch(bitmap)
    ]
    taken: Counter[int] = Counter()
    if not problems:
        for bitmap in sticky.slots.values():
            taken.update(slots_in(bitmap))
    if any(count > 1 for count in taken.values()):
        problems.append("a slot of sticky shares belongs to two versions")
    return problems


def assign_slots(sticky: StickyShares, traffic: Mapping[str, int]) -> StickyShares:
    """Assign slots to versions by their share of the traffic.

    The result is a copy of `sticky`: each version has as many slots as its percentage in `traffic`, which adds up to 100. As
    few slots change hands as possible. Which ones follows from the seed, so every gateway comes to the same result.
    """
    first = (
        None if sticky.slots or not traffic else max(traffic, key=lambda version: (traffic[version], version))
    )
    owners: dict[int, str | None] = dict.fromkeys(range(SLOTS), first)
    for version, bitmap in sticky.slots.items():
        if version in traffic:
            owners.update(dict.fromkeys(slots_in(bitmap), version))
    excess = Counter(owners.values())
    excess.subtract(traffic)
    moves = sorted(
        (_preference(sticky.seed, owner, slot) - _preference(sticky.seed, version, slot), slot, version)
        for slot, owner in owners.items()
        if excess[owner] > 0
        for version in traffic
        if excess[version] < 0
    )
    for _, slot, version in moves:
        owner = owners[slot]
        if excess[owner] > 0 and excess[version] < 0:
            owners[slot] = version
            excess[owner] -= 1
            excess[version] += 1
    bitmaps: Counter[str] = Counter()
    for slot, owner in owners.items():
        if owner is not None:
            bitmaps[owner] |= 1 << slot
    slots = {version: f"{bitmaps[version]:0{_BITMAP_DIGITS}x}" for version in sorted(bitmaps)}
    return msgspec.structs.replace(sticky, slots=slots)


def slots_in(bitmap: str) -> list[int]:
    """The slots whose bits are set in `bitmap`. They are in ascending order."""
    number = int(bitmap, 16)
    return [slot for slot in range(SLOTS) if number >> slot & 1]


def _preference(seed: str, version: str | None, slot: int) -> int:
    """How much a version wants a slot: the same for all time, and unlike any other version's."""
    if version is None:
        return 0
    return int.from_bytes(
        blake2b(f"slot\0{version}\0{slot}".encode(), digest_size=HASH_BYTES, key=bytes.fromhex(seed)).digest()
    )
