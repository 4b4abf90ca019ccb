"""Who asks for what: an id and a trace for every request, whatever was sent along."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.client_address import TrustedProxies
from gateway.core.errors import BadRequest
from gateway.core.ip_network_set import parse_address
from gateway.stages.read_request_context import ReadRequestContext

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def exchange(
    target: str = "/wine", headers: list[tuple[bytes, bytes]] | None = None, peer: str = "192.0.2.1"
) -> Any:
    """What the stage reads and fills."""
    return SimpleNamespace(
        headers=[(b"Host", b"chips"), *(headers or [])],
        raw_target=target,
        peer=peer,
        scheme="http",
        request_id="",
        cached_head=None,
        last_digest=None,
        variable_values=(),
    )


def identified(*arguments: Any, trust: TrustedProxies | None = None, **options: Any) -> Any:
    made = exchange(*arguments, **options)
    ReadRequestContext(trust or TrustedProxies())(made)
    return made


@pytest.mark.parametrize("given_id", [b"a", b"4711", b"A-b_c.d:e+f/g=h@i", b"x" * 128])
def test_an_id_that_can_be_kept_is_kept(given_id: bytes):
    assert identified(headers=[(b"X-Request-Id", given_id)]).request_id == given_id.decode()


@pytest.mark.parametrize(
    "given_id", [b"", b" ", b"a b", b"x" * 129, b"<a>", b'a"b', b"\xff", b"a\nb", b"{}", b"a,b"]
)
def test_an_id_that_could_do_harm_is_replaced(given_id: bytes):
    made = identified(headers=[(b"X-Request-Id", given_id)])
    assert re.fullmatch(r"[0-9a-f]{32}", made.request_id)


def test_every_request_has_an_id_of_its_own():
    assert len({identified().request_id for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ([(b"Authorization", b"a"), (b"Authorization", b"b")], "/wine"),
        ([], "/../x"),
        ([], "*"),
        ([], "/wine%00"),
    ],
)
def test_a_refusal_too_has_an_id_and_a_trace(headers: list[tuple[bytes, bytes]], target: str):
    made = exchange(target, headers)
    with pytest.raises(BadRequest):
        ReadRequestContext(TrustedProxies())(made)
    assert made.request_id
    assert re.fullmatch(r"[0-9a-f]{32}", made.trace.trace_id)


def test_the_callers_trace_is_continued():
    span = "00f067aa0ba902b7"
    made = identified(headers=[(b"traceparent", f"00-{TRACE}-{span}-01".encode())])
    assert (made.trace.trace_id, made.trace.parent_id) == (TRACE, span)
    older = identified(headers=[(b"X-Cloud-Trace-Context", f"{TRACE}/1;o=1".encode())])
    assert older.trace.trace_id == TRACE


@pytest.mark.parametrize("forged", [b"127.0.0.1", b"10.0.0.1, 127.0.0.1", b"::1", b"unknown"])
def test_without_a_trusted_hop_nobody_can_say_where_they_call_from(forged: bytes):
    made = identified(
        headers=[(b"X-Forwarded-For", forged), (b"X-Real-IP", forged), (b"Forwarded", b"for=" + forged)]
    )
    assert made.address == parse_address("192.0.2.1")


@given(st.binary(max_size=60).filter(lambda raw: b"," not in raw))
def test_with_one_trusted_hop_only_what_it_wrote_counts(left: bytes):
    headers = [(b"X-Forwarded-For", left + b", 198.51.100.7")]
    made = identified(headers=headers, trust=TrustedProxies(hops=1))
    assert made.address == parse_address("198.51.100.7")


def test_the_target_is_split_with_the_host_that_was_named():
    made = identified("http://chips/wine?a=b")
    assert (made.target.model, made.target.query) == ("wine", "?a=b")
    with pytest.raises(BadRequest):
        identified("http://other/wine")
