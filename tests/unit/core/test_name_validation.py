"""Names: what fits everywhere a name goes, and patterns that some name can match."""

import re
from fnmatch import fnmatchcase
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.name_validation import check_model_glob, check_model_name, check_version

names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name != "v2"
)


@given(names)
def test_a_good_name_needs_no_escaping_anywhere(name: str):
    assert check_model_name(name) == name
    assert quote(name, safe="") == name
    assert name == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-",
        "-a",
        "a-",
        "_a",
        "a_",
        "A",
        "wïne",
        "a.b",
        "a/b",
        "a b",
        "a\n",
        "\na",
        "a" * 64,
        "..",
        "v2",
        "%61",
        "a\x00",
        "é",
    ],
)
def test_a_bad_name_says_what_a_name_is(name: str):
    with pytest.raises(ValueError, match=r"cannot be a model's name|is reserved"):
        check_model_name(name)


@given(st.text(max_size=80))
def test_no_text_becomes_a_name_that_is_none(text: str):
    try:
        assert check_model_name(text) == text
    except ValueError:
        return
    assert re.fullmatch(r"[a-z0-9_-]{1,63}", text)


@pytest.mark.parametrize("version", ["1", "3.2.1", "2026-01-31", "v_1", "A", "1" * 64])
def test_a_good_version(version: str):
    assert check_version(version) == version


@pytest.mark.parametrize(
    "version", ["", ".", "..", ".1", "-1", "_1", "1/2", "1 2", "1\n", "1" * 65, "ü", "1%2e"]
)
def test_a_bad_version(version: str):
    with pytest.raises(ValueError, match="cannot be a version"):
        check_version(version)


@given(names, st.integers(0, 63))
def test_a_pattern_made_from_a_name_is_good_and_matches_it(name: str, cut: int):
    for pattern in (name, name[:cut] + "*", "*" + name[cut:], "?" * len(name), f"[{name[0]}]{name[1:]}"):
        assert check_model_glob(pattern) == pattern
        assert fnmatchcase(name, pattern)


@given(st.text(alphabet="aA-_*?[]! /,.", max_size=8), names)
def test_what_matches_a_name_is_never_refused(pattern: str, name: str):
    if fnmatchcase(name, pattern):
        assert check_model_glob(pattern) == pattern


@pytest.mark.parametrize(
    "pattern", ["", " ", "Wine", "wine,fraud", "a/b", "wine ", "*.csv", "[", "wine[", "é*", "wine\n"]
)
def test_a_pattern_that_matches_no_name_is_refused(pattern: str):
    with pytest.raises(ValueError, match="matches no model's name"):
        check_model_glob(pattern)
