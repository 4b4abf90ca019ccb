"""A backend's head: which of its fields go on, and that it is taken apart in time that grows with its length alone."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.response_head import _read_line, parse_response_head


def test_a_valid_field_with_many_spaces_inside():
    """A pattern that backtracks would take seconds for one such line, and a head may hold many."""
    value = b"a" + b" " * 60_000 + b"b"
    for _ in range(20):
        assert _read_line(b"X-Odd: " + value)


def forwarded(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    lines = [b"HTTP/1.1 200 OK", *(b"%b: %b" % field for field in fields)]
    parted = [line.partition(b": ") for line in parse_response_head(b"\r\n".join(lines)).fields.splitlines()]
    return [(name, value) for name, _, value in parted]


def test_of_an_answer_the_backends_own_fields_go_on():
    fields = [
        *(
            (b"Content-Type", b"a/b"),
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
            (b"X-Chips-Model", b"wine@3"),
        ),
        *((b"X-Hop", b"1"), (b"Connection", b"close, x-hop"), (b"Transfer-Encoding", b"chunked")),
        *(
            (b"chips-error", b"internal-error"),
            (b"X-Request-Id", b"mine"),
            (b"Server", b"x"),
        ),
    ]
    assert forwarded(fields) == fields[:3]


@given(
    st.lists(
        st.tuples(st.sampled_from([b"A", b"b", b"C"]), st.sampled_from([b"", b"1", b"x y", b"\xe4"])),
        max_size=8,
    ),
    st.sampled_from([b"a", b"B", b"c"]),
)
def test_what_an_answers_connection_names_stops_wherever_it_stands(
    fields: list[tuple[bytes, bytes]], named: bytes
):
    for place in (0, len(fields)):
        with_connection = [*fields[:place], (b"CONNECTION", named), *fields[place:]]
        assert forwarded(with_connection) == [field for field in fields if field[0].lower() != named.lower()]
