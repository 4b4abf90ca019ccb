"""Header fields: what is read, what goes on, what stops, in both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import header_classification
from gateway.core.errors import BadRequest
from gateway.core.header_classification import RequestHead, classify_request_headers

HOP_BY_HOP = [
    *(b"Connection", b"Keep-Alive", b"Proxy-Authenticate", b"Proxy-Authorization", b"Proxy-Connection"),
    *(b"TE", b"Trailer", b"Transfer-Encoding", b"Upgrade"),
]


def onward(head: RequestHead) -> list[tuple[bytes, bytes]]:
    lines = head.outbound.split(b"\r\n")[:-1]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def test_what_nobody_reads_goes_on_as_it_came():
    given_fields = [(b"Accept", b"a/b"), (b"X-Thing", b"1"), (b"x-thing", b"2"), (b"Cookie", b"")]
    assert onward(classify_request_headers(given_fields)) == given_fields


def test_what_is_read_does_not_go_on():
    head = classify_request_headers(
        [
            (b"HOST", b"chips"),
            (b"X-Api-Key", b"secret"),
            (b"Authorization", b"Bearer x"),
            (b"TraceParent", b"t"),
            (b"X-Request-Timeout", b"5"),
            (b"Accept", b"*/*"),
        ]
    )
    assert onward(head) == [(b"Accept", b"*/*")]
    assert head.read[header_classification.HOST] == b"chips"
    assert head.read[header_classification.API_KEY] == b"secret"
    assert head.read[header_classification.AUTHORIZATION] == b"Bearer x"
    assert head.read[header_classification.TRACEPARENT] == b"t"
    assert head.read[header_classification.REQUEST_TIMEOUT] == b"5"
    assert head.read[header_classification.FORWARDED_FOR] is None


@pytest.mark.parametrize("name", [*HOP_BY_HOP, b"Content-Length", b"Via", b"Forwarded", b"X-Real-IP"])
@pytest.mark.parametrize("spell", [bytes.lower, bytes.upper, bytes.title])
def test_what_ends_here_ends_here_however_it_is_spelled(name: bytes, spell):
    head = classify_request_headers([(spell(name), b"x"), (b"Accept", b"*/*")])
    assert onward(head) == [(b"Accept", b"*/*")]


@pytest.mark.parametrize(
    "name", [b"X-Chips-Caller", b"x-chips-anything", b"X_Chips_Caller", b"X-CHIPS_caller"]
)
def test_nobody_speaks_as_the_gateway(name: bytes):
    assert onward(classify_request_headers([(name, b"root")])) == []


@pytest.mark.parametrize("name", [b"X_Api_Key", b"x_forwarded-for", b"Transfer_Encoding"])
def test_an_underscore_does_not_slip_past(name: bytes):
    head = classify_request_headers([(name, b"x")])
    assert onward(head) == []
    assert head.read == [None] * len(head.read), "and it is not taken for the true one"


@pytest.mark.parametrize(
    "name", [b"Host", b"X-Api-Key", b"Authorization", b"traceparent", b"X-Request-Id", b"X-Request-Timeout"]
)
def test_what_may_stand_once_is_refused_twice(name: bytes):
    with pytest.raises(BadRequest, match="more than once"):
        classify_request_headers([(name, b"a"), (name.upper(), b"a")])


def test_lists_are_joined_in_order():
    head = classify_request_headers(
        [(b"X-Forwarded-For", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2, 3.3.3.3")]
    )
    assert head.read[header_classification.FORWARDED_FOR] == b"1.1.1.1, 2.2.2.2, 3.3.3.3"


def test_what_connection_names_ends_here_too():
    head = classify_request_headers(
        [
            (b"X-Hop", b"1"),
            (b"Connection", b"keep-alive, X-HOP"),
            (b"Connection", b"other"),
            (b"Other", b"2"),
            (b"A", b"3"),
        ]
    )
    assert onward(head) == [(b"A", b"3")]


def test_connection_cannot_take_away_what_the_gateway_reads():
    """RFC 9110 section 7.6.1 warns of it: a caller must not remove its own address or key by naming it."""
    head = classify_request_headers(
        [
            (b"Connection", b"x-forwarded-for, x-api-key"),
            (b"X-Api-Key", b"k"),
            (b"X-Forwarded-For", b"1.1.1.1"),
        ]
    )
    assert head.read[header_classification.API_KEY] == b"k"
    assert head.read[header_classification.FORWARDED_FOR] == b"1.1.1.1"


_names = st.one_of(
    st.sampled_from([*HOP_BY_HOP, b"Accept", b"X-A", b"x_b", b"X-Chips-Model", b"Via", b"X-Forwarded-For"]),
    st.from_regex(rb"[A-Za-z0-9_-]{1,80}", fullmatch=True),
)
_values = st.binary(max_size=20).filter(lambda value: b"\n" not in value and b"\r" not in value)
_fields = st.lists(st.tuples(_names, _values), max_size=12)


@given(_fields)
def test_reading_a_head_twice_gives_the_same(fields: list[tuple[bytes, bytes]]):
    """What was learned about a name must not change what is done with it."""

    def read() -> object:
        try:
            head = classify_request_headers(fields)
        except BadRequest as error:
            return str(error)
        return head.read, head.outbound

    assert read() == read()


@given(_fields)
def test_what_goes_on_is_some_of_what_came_in_its_order(fields: list[tuple[bytes, bytes]]):
    try:
        goes_on = onward(classify_request_headers(fields))
    except BadRequest:
        return
    rest = iter(fields)
    assert all(field in rest for field in goes_on)
    for name, _ in goes_on:
        plain = name.lower().replace(b"_", b"-")
        assert not plain.startswith(b"x-chips-")
        assert plain not in {hop.lower() for hop in HOP_BY_HOP}


def test_many_names_do_not_fill_the_memory():
    for number in range(5000):
        classify_request_headers([(b"X-%d" % number, b"")])
    assert len(header_classification._learned) <= header_classification._LEARNED_LIMIT
