"""Text from people as it may leave: nothing hidden, nothing reordered, no line of its own."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.direct_response import json_response
from gateway.core.escape_unprintable import printable, printable_json, printable_own_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 日本, 🙂, e\u0301, a\u00a0b", "Grüße, 日本, 🙂, e\u0301, a\u00a0b"),
        ("a\nb\r\tc", "a\\nb\\x0d\\tc"),
        ("\x00\x1b[2J\x7f\x85\x9b", "\\x00\\x1b[2J\\x7f\\x85\\x9b"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\u2066\u2069\u200e\u200f\u061c", "\\u2066\\u2069\\u200e\\u200f\\u061c"),
        ("a\u200bb\u200c\u200d\u2060\ufeff\u00ad", "a\\u200bb\\u200c\\u200d\\u2060\\ufeff\\xad"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041\U000e007f", "\\U000e0041\\U000e007f"),
        ("\ud800", "\\ud800"),
        ("\u3164", "\\u3164"),
        ("a\u034fb\u17b4\u180b\u180f", "a\\u034fb\\u17b4\\u180b\\u180f"),
        ("a\ufe00b\ufe0f\U000e0100\U000e01ef", "a\\ufe00b\\ufe0f\\U000e0100\\U000e01ef"),
        ("\u2800", "\\u2800"),
    ],
)
def test_what_does_not_show_is_written_out(text: str, shown: str):
    assert printable(text) == shown
    assert json.loads(printable_json(json.dumps(text, ensure_ascii=False))) == text


@given(st.text(alphabet=st.characters()))
def test_nothing_is_left_that_does_not_show(text: str):
    for char in printable(text):
        category = unicodedata.category(char)
        assert category[0] != "C", repr(char)
        assert category not in {"Zl", "Zp"}, repr(char)
    assert printable(printable(text)) == printable(text)
    assert printable_own_lines(text).count("\n") == text.count("\n")


@given(
    st.recursive(
        st.text(alphabet=st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_says_the_same(content: object):
    for indent in (None, 2):
        written = printable_json(json.dumps(content, ensure_ascii=False, indent=indent))
        assert json.loads(written) == content
        assert printable_own_lines(written) == written


def test_the_gateways_own_answers_too():
    body = json_response({"description": "a\x7f\x9b\u202eb\u2028ü"}).body
    assert body == '{"description":"a\\u007f\\u009b\\u202eb\\u2028ü"}\n'.encode()
