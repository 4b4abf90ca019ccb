"""A template finds the values in lines, wherever they stood before, and takes nothing else for the same lines."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.head_line_matcher import LineMatcher, byte_table

LINES = [b"GET / HTTP/1.1", b"A: ", b"B: b", b"C: ", b"", b""]
VALUES = st.lists(st.tuples(*[st.text("abAB: ", max_size=4).map(str.encode)] * 2), min_size=1, max_size=8)


@given(VALUES, st.permutations([1, 3]))
def test_values_are_found_in_the_order_of_their_places(several: list[tuple[bytes, bytes]], places: list[int]):
    template = LineMatcher(LINES, places)
    for values in several:
        lines = list(LINES)
        for place, value in zip(places, values, strict=True):
            lines[place] += value
        assert template.match(b"\r\n".join(lines)) == values


@given(VALUES, st.lists(st.sampled_from([*LINES, b"A: x", b"C: yy", b"c: z"]), max_size=7))
def test_other_lines_are_not_the_same(several: list[tuple[bytes, bytes]], other: list[bytes]):
    template = LineMatcher(LINES, [1, 3])
    for first, second in several:  # so that it remembers some sizes
        template.match(b"\r\n".join([LINES[0], b"A: " + first, LINES[2], b"C: " + second, b"", b""]))
    same = len(other) == len(LINES) and all(
        line.startswith(known) if place in {1, 3} else line == known
        for place, (line, known) in enumerate(zip(other, LINES, strict=False))
    )
    assert (template.match(b"\r\n".join(other)) is not None) == same


def test_lines_without_a_value_are_the_same_or_not():
    template = LineMatcher([b"a", b"b"], [])
    assert template.match(b"a\r\nb") == ()
    assert template.match(b"a\r\nb") == ()
    assert template.match(b"a\r\nc") is None


def test_a_byte_table_tells_allowed_bytes_from_all_others():
    table = byte_table(b"!a~")
    for byte in range(256):
        assert (0 in bytes([97, byte, 33]).translate(table)) == (byte not in b"!a~")
    assert 0 not in b"".translate(table)
