"""API keys: recognizable, checkable without asking anybody, kept as digests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.api_keys import (
    LastKeyDigest,
    bearer_key,
    digest_key,
    digest_key_bytes,
    is_well_formed,
    key_id,
    make_key,
)


def test_made_keys_are_well_formed_and_differ():
    made = {make_key() for _ in range(500)}
    assert len(made) == 500
    assert all(is_well_formed(key) for key in made)


@given(st.integers(6, 43), st.sampled_from("0Aaz9"))
def test_one_mistyped_character_is_found(place: int, typed: str):
    key = make_key()
    mistyped = key[:place] + typed + key[place + 1 :]
    assert is_well_formed(mistyped) == (mistyped == key)


@given(st.integers(6, 42))
def test_two_swapped_characters_are_found(place: int):
    key = make_key()
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert is_well_formed(swapped) == (swapped == key)


@pytest.mark.parametrize(
    "change", [str.upper, str.strip, lambda key: key[:-1], lambda key: key + "a", lambda key: key[6:]]
)
def test_half_a_key_is_none(change):
    key = make_key()
    changed = change(key)
    assert is_well_formed(changed) == (changed == key)


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str):
    assert not is_well_formed(text)
    assert not is_well_formed("chips_" + text)


def test_a_key_of_the_first_release_stays_one():
    """Keys are out there for years: neither their form nor their digest can change."""
    key = "chips_0123456789abcdefghijklmnopqrstuv2crudd"
    assert is_well_formed(key)
    assert digest_key(key) == "61d33ebb0793c5181e04236b787e94bb0644efc01ddc940143b822ce3ebaf5cb"
    assert key_id(digest_key(key)) == "61d33ebb0793"


@pytest.mark.parametrize(
    ("field", "key"),
    [
        (b"Bearer chips_abc", b"chips_abc"),
        (b"bearer  chips_abc", None),
        (b"BEARER CHIPS_ABC ", b"CHIPS_ABC"),
        (b"Bearer eyJhbGciOi", None),
        (b"Basic chips_abc", None),
        (b"chips_abc", None),
        (b"", None),
    ],
)
def test_a_key_in_authorization(field: bytes, key: bytes | None):
    assert bearer_key(field) == key


@given(st.lists(st.sampled_from([b"", b"a", b"b", b"ab", b"chips_a", b"chips_b"]), max_size=8))
def test_a_connection_remembers_the_digest_of_its_last_key(keys: list[bytes]):
    last = LastKeyDigest()
    for key in keys:
        assert last.digest(key) == digest_key_bytes(key) == digest_key(key.decode())
