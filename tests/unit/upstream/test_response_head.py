"""A backend's head, taken apart in time that grows with its length alone."""

from gateway.upstream.response_head import _read_line


def test_a_valid_field_with_many_spaces_inside():
    """A pattern that backtracks would take seconds for one such line, and a head may hold many."""
    value = b"a" + b" " * 60_000 + b"b"
    for _ in range(20):
        assert _read_line(b"X-Odd: " + value)
