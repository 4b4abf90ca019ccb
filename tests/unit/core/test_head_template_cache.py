"""Known heads: what is remembered is what the parser would say again, and nothing that is a secret."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.client_address import TrustedProxies
from gateway.core.errors import GatewayError, HeadersTooLarge
from gateway.core.exchange import Exchange
from gateway.core.head_template_cache import CachedHead, HeadTemplateCache
from gateway.server.request_head_parser import HeadParser, parsed_head_of
from gateway.stages.read_request_context import ReadRequestContext

PEER = "192.0.2.1"
SECRET = b"chips_secret4711"
HEAD = (
    b"POST /wine?x=1 HTTP/1.1",
    b"Host: chips.example",
    b"User-Agent: curl/8",
    b"X-Api-Key: " + SECRET,
    b"X-Forwarded-For: 203.0.113.7",
    b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"X-Request-Id: 4711",
    b"Accept: */*",
    b"Content-Length: 5",
)


class Reader:
    """What a connection does with a head, without the connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, heads: HeadTemplateCache | None = None) -> None:
        self.heads = heads or HeadTemplateCache(longest_head_bytes=8192)
        self.last: CachedHead | None = None
        self.recalled = False
        self._parser = HeadParser(loop, limit_bytes=8192)
        self.name = "chips"
        self._identify = ReadRequestContext(TrustedProxies(hops=1), lambda: self.name)

    def read(self, raw: bytes, *, remember: bool = True) -> Any:
        found = self.heads.lookup(self.last, PEER, "http", raw) if remember else None
        self.recalled = found is not None
        if found is not None:
            self.last, values = found
            parsed, known = self.last.parsed, self.last
            length = int(values[-1]) if known.has_length else parsed.length
        else:
            parsed, values, known = parsed_head_of(self._parser.parse(raw)), [], None
            length = parsed.length
            if remember:
                self.last = known = self.heads.store(PEER, "http", raw, parsed)
        exchange = Exchange(
            method=parsed.method,
            raw_target=parsed.target,
            headers=parsed.headers,
            peer=PEER,
            scheme="http",
            body=None,  # type: ignore[arg-type]
            response=None,  # type: ignore[arg-type]
            arrived=0.0,
            cached_head=known,
            variable_values=values,
        )
        self._identify(exchange)
        head = exchange.head
        return (
            (parsed.method, parsed.target, parsed.version_11, parsed.closes, parsed.expects, length),
            (head.read, head.outbound, head.way, head.address, head.vouched, head.target),
            (exchange.trace.parent_id, exchange.trace.sampled, exchange.address, exchange.target),
        )


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def joined(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_the_same_head_is_read_once(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    first = reader.read(joined(*HEAD))
    assert not reader.recalled
    assert reader.read(joined(*HEAD)) == first
    assert reader.recalled


def test_a_head_is_read_anew_where_the_gateway_has_another_name(loop: asyncio.AbstractEventLoop):
    """It has one as soon as it has read its registry, and another one with another registry."""
    reader, fresh = Reader(loop), Reader(loop)
    reader.read(joined(*HEAD))
    reader.name = fresh.name = "chips-4711"
    other = joined(*HEAD).replace(b"secret", b"others")
    for _ in range(2):
        assert reader.read(other) == fresh.read(other, remember=False)
        assert reader.recalled
    assert b"Via: 1.1 chips-4711\r\n" in reader.read(other)[1][2]


def test_what_is_particular_is_each_requests_own(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    reader.read(joined(*HEAD))
    mine = [
        line.replace(b"secret", b"others").replace(b"5", b"77").replace(b"Id: 4", b"Id: x") for line in HEAD
    ]
    mine[0], mine[1:4] = HEAD[0], [HEAD[1], HEAD[2], mine[3]]
    read = reader.read(joined(*mine))
    assert reader.recalled
    assert read == Reader(loop).read(joined(*mine))
    assert b"chips_others4711" in read[1][0]
    assert read[0][-1] == 77


def test_heads_are_known_to_all_connections_of_a_peer(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    reader.read(joined(*HEAD))
    other = Reader(loop, reader.heads)
    other.read(joined(*HEAD))
    assert other.recalled
    assert reader.heads.lookup(None, "192.0.2.2", "http", joined(*HEAD)) is None
    assert reader.heads.lookup(None, PEER, "https", joined(*HEAD)) is None


def test_a_bearer_token_is_particular_too(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    head = (*HEAD[:3], b"authorization: Bearer one", HEAD[4])
    reader.read(joined(*head))
    read = reader.read(joined(*head).replace(b"one", b"two"))
    assert reader.recalled
    assert b"Bearer two" in read[1][0]


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: a=b",
        b"Proxy-Authorization: Basic eDp5",
        b"X-Serverless-Authorization: Bearer x",
        b"X-Goog-IAP-JWT-Assertion: x",
        b"X-Vendor-Token: x",
        b"X_Api_Key: x",
        b"X_API-KEY: x",
        b"Authorization_: x",
        b"Ocp-Apim-Subscription-Key: x",
        b"X-Functions-Key: x",
        b"Api_Secret: x",
        b"X-Amz-Security-Token: x",
        b"X-Hub-Signature-256: x",
        b"X-Passphrase: x",
        b"X-CSRF: x",
        b"X-Vault-Otp: x",
        b"Authorization: secret",
        b"Authorization: secret ",
        b"X-Api-Key:close",
        b"X-Api-Key: a\r\nX-Api-Key: b",
    ],
)
def test_some_heads_are_read_anew_each_time(loop: asyncio.AbstractEventLoop, line: bytes):
    reader = Reader(loop)
    head = joined(HEAD[0], HEAD[1], *line.split(b"\r\n"))
    for _ in range(3):
        try:
            reader.read(head)
        except GatewayError:
            reader.last = None
        assert not reader.recalled


def test_a_scheme_without_a_credential_is_read_as_the_parser_reads_it(loop: asyncio.AbstractEventLoop):
    for scheme in (b"Bearer", b"Basic"):
        reader = Reader(loop)
        reader.read(joined(HEAD[0], HEAD[1], b"Authorization: " + scheme + b" one"))
        for value in (b"", b" ", b"  ", b" \t"):
            head = joined(HEAD[0], HEAD[1], b"Authorization: " + scheme + value)
            assert reader.read(head) == Reader(loop).read(head)


def test_no_credential_stays_in_memory(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    reader.read(joined(*HEAD, b"Authorization: Bearer " + SECRET))
    reader.read(joined(*HEAD, b"Authorization: Bearer " + SECRET))
    assert reader.recalled
    seen: set[int] = set()
    todo: list[object] = [reader.heads]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, bytes):
            assert SECRET not in item
        if isinstance(item, str):
            assert SECRET.decode() not in item
        todo += gc.get_referents(item)


def test_a_field_that_is_too_long_is_refused_however_well_the_head_is_known(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    reader.read(joined(*HEAD))
    with pytest.raises(HeadersTooLarge):
        reader.read(joined(*HEAD).replace(SECRET, SECRET * 1000))


def test_a_query_that_may_hold_a_secret_is_not_remembered(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    for query in (b"api_key=x", b"a=1&access_token=x", b"sig=x&X-Goog-Signature=x"):
        for _ in range(2):
            reader.read(joined(HEAD[0].replace(b"x=1", query), HEAD[1]))
            assert not reader.recalled


def test_the_memory_is_bounded(loop: asyncio.AbstractEventLoop):
    reader = Reader(loop)
    for number in range(2000):
        reader.read(joined(HEAD[0], HEAD[1], b"X-N: %d" % number))
    assert len(reader.heads) <= 512
    reader.read(joined(HEAD[0], HEAD[1], b"X-N: " + b"x" * 5000))
    reader.read(joined(HEAD[0], HEAD[1], b"X-N: " + b"x" * 5000))
    assert not reader.recalled


_bytes = st.sampled_from(
    "|\x00|\t|\n|\r|\xff|\x7f| |0|-1|+5|5|05|5 | 5|1_0|9999999999999999|x|a,b|Bearer|Bearer |Bearer x|bearer  x|Basic x"
    "|00-00000000000000000000000000000000-00f067aa0ba902b7-01".encode("latin-1").split(b"|")
)
_names = st.sampled_from(
    b"Content-Length content-length X-Api-Key Authorization traceparent tracestate X-Request-Id "
    b"x-cloud-trace-context Accept Transfer-Encoding Connection X_Api_Key".split()
)
_separators = st.sampled_from([b": ", b":", b":  ", b" : ", b":\t"])
_lines = st.lists(st.tuples(_names, _separators, _bytes).map(b"".join), max_size=5)


@given(before=_lines, after=_lines)
@example(before=[b"Content-Length: 5"], after=[b"Content-Length: 5 "])
@example(before=[b"Content-Length: 5"], after=[b"Content-Length: +5"])
@example(before=[b"X-Api-Key: x"], after=[b"X-Api-Key:  x"])
def test_what_is_recalled_is_what_the_parser_says(
    loop: asyncio.AbstractEventLoop, before: list[bytes], after: list[bytes]
):
    """The parser is the judge: whatever was read before, a head is read as if it were the first, or refused the same."""

    def outcome(reader: Reader, head: bytes, *, remember: bool) -> object:
        try:
            return reader.read(head, remember=remember)
        except GatewayError as error:
            reader.last = None
            return type(error)

    reader = Reader(loop)
    for lines in (before, before, after, before, after, after):
        head = joined(HEAD[0], HEAD[1], *lines)
        assert outcome(reader, head, remember=True) == outcome(Reader(loop), head, remember=False)
