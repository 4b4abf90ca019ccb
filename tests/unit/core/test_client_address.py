"""Who called: every forged header from every side, against each way to trust."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.client_address import TrustedProxies
from gateway.core.header_classification import classify_request_headers
from gateway.core.ip_network_set import parse_address, parse_network

CLIENT, FORGED, PROXY, OTHER = "203.0.113.9", "192.0.2.7", "10.0.0.5", "10.0.0.6"


def caller(trust: TrustedProxies, peer: str, *fields: tuple[str, str]) -> str | None:
    head = classify_request_headers([(name.encode(), value.encode("latin-1")) for name, value in fields])
    return trust.client_address(peer, head)


@pytest.mark.parametrize(
    ("hops", "chain", "expected"),
    [
        (1, CLIENT, CLIENT),
        (1, f"{FORGED}, {CLIENT}", CLIENT),
        (1, f"{FORGED},{FORGED},{FORGED},{CLIENT}", CLIENT),
        (1, f"{CLIENT},", ""),
        (2, f"{FORGED}, {CLIENT}, {PROXY}", CLIENT),
        (2, f"{CLIENT}, {PROXY}", CLIENT),
        (2, FORGED, None),  # did not come through the balancer
        (3, f"{FORGED}, {CLIENT}", None),
        (1, ",".join([FORGED] * 500 + [CLIENT]), CLIENT),
        (1, None, None),
    ],
)
def test_a_number_of_hops(hops, chain, expected):
    fields = [] if chain is None else [("X-Forwarded-For", chain)]
    assert caller(TrustedProxies(hops=hops), PROXY, *fields) == expected


def test_two_fields_are_one_list_in_their_order():
    fields = [("X-Forwarded-For", FORGED), ("x-forwarded-for", CLIENT)]
    assert caller(TrustedProxies(hops=1), PROXY, *fields) == CLIENT


@pytest.mark.parametrize(
    ("peer", "chain", "expected"),
    [
        (CLIENT, FORGED, CLIENT),  # a stranger's header
        (CLIENT, None, CLIENT),
        (PROXY, CLIENT, CLIENT),
        (PROXY, f"{FORGED}, {CLIENT}", CLIENT),
        (PROXY, f"{FORGED}, {CLIENT}, {OTHER}", CLIENT),
        (PROXY, f"{OTHER}, {CLIENT}, {OTHER}", CLIENT),
        (PROXY, f"{FORGED}, garbage, {OTHER}", "garbage"),
        (PROXY, OTHER, OTHER),
        (PROXY, None, PROXY),
        (PROXY, f"{FORGED}, ::ffff:10.0.0.6", FORGED),  # a trusted proxy, mapped
    ],
)
def test_proxies_by_network(peer, chain, expected):
    trust = TrustedProxies(proxies=[parse_network("10.0.0.0/8")])
    fields = [] if chain is None else [("X-Forwarded-For", chain)]
    assert caller(trust, peer, *fields) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"for={FORGED}, for={CLIENT}", CLIENT),
        (f"For={CLIENT};proto=https;by=10.0.0.1", CLIENT),
        (f"proto=https ; FOR = {CLIENT} ; host=x", CLIENT),
        ('for="[2001:db8::1]:4711"', "[2001:db8::1]:4711"),
        (f'for="{CLIENT}:80"', f"{CLIENT}:80"),
        (f'host="a,for={FORGED}"; for={CLIENT}', CLIENT),
        (f'for={CLIENT}, host="for={FORGED}"', ""),
        (f"for={CLIENT};for={FORGED}", ""),  # two names: neither
        (f'for={CLIENT}, by="open, for={FORGED}', None),
        ("for=unknown", "unknown"),
        ("for=_hidden", "_hidden"),
        ("", ""),
        (f"xfor={FORGED}", ""),
        (f"for={CLIENT} {FORGED}", ""),
        (f'for="{FORGED}\\", for={CLIENT}', None),
    ],
)
def test_forwarded(field, expected):
    assert caller(TrustedProxies(hops=1, forwarded=True), PROXY, ("Forwarded", field)) == expected


def test_only_the_configured_header_is_read():
    both = [("X-Forwarded-For", FORGED), ("Forwarded", f"for={CLIENT}")]
    assert caller(TrustedProxies(hops=1, forwarded=True), PROXY, *both) == CLIENT
    assert caller(TrustedProxies(hops=1), PROXY, *both) == FORGED
    assert caller(TrustedProxies(), PROXY, *both) == PROXY


@given(st.lists(st.ip_addresses(v=4).map(str) | st.text(max_size=8), max_size=8), st.booleans())
def test_what_a_caller_writes_never_moves_the_answer(forged, forwarded):
    """Whatever stands to the left of what the proxy appended, the proxy's word is what counts."""
    prefix = [text.encode("ascii", "replace").decode() for text in forged]
    if forwarded:
        prefix = [text.replace('"', "") for text in prefix]
    name, entry = ("Forwarded", f"for={CLIENT}") if forwarded else ("X-Forwarded-For", CLIENT)
    found = caller(TrustedProxies(hops=1, forwarded=forwarded), PROXY, (name, ", ".join([*prefix, entry])))
    assert found is not None
    assert parse_address(found) == parse_address(CLIENT)
