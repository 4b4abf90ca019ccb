"""Networks: the compiled set says what the standard library says, only faster."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ip_network_set import NetworkSet, parse_address, parse_network


@st.composite
def networks(draw: st.DrawFn):
    if draw(st.booleans()):
        return IPv4Network((draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 32))), strict=False)
    return IPv6Network((draw(st.integers(0, 2**128 - 1)), draw(st.integers(0, 128))), strict=False)


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(st.lists(networks(), max_size=8), st.data())
def test_an_address_is_in_the_set_where_it_is_in_one_of_the_networks(chosen, data: st.DataObject):
    compiled = NetworkSet(chosen)
    candidates = [data.draw(addresses)]
    for network in chosen:
        first, last = int(network.network_address), int(network.broadcast_address)
        kind = type(network.network_address)
        candidates += [kind(first), kind(last)]
        candidates += [kind(n) for n in (first - 1, last + 1) if 0 <= n < 2**network.max_prefixlen]
    for address in candidates:
        assert (address in compiled) == any(address in network for network in chosen), address
    assert len(compiled) == len(chosen)
    assert all(  # and once more, from memory
        (address in compiled) == any(address in network for network in chosen) for address in candidates
    )


def test_an_empty_set_holds_nothing():
    assert IPv4Address(0) not in NetworkSet([])
    assert IPv6Address("::") not in NetworkSet([])


def test_everything_of_one_version_is_nothing_of_the_other():
    assert IPv6Address("::1") not in NetworkSet([parse_network("0.0.0.0/0")])
    assert IPv4Address("127.0.0.1") not in NetworkSet([parse_network("::/0")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        (" 192.0.2.7 ", "192.0.2.7/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
    ],
)
def test_a_network_can_be_written_in_these_ways(text: str, expected: str):
    assert str(parse_network(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "localhost", "192.0.2", "192.0.2.0/33", "192.0.2.0/-1", "1.2.3.4/24/8", "::g"]
)
def test_what_is_no_network_says_how_one_is_written(text: str):
    with pytest.raises(ValueError, match="is not an IP network such as"):
        parse_network(text)


def test_host_bits_are_a_likely_mistake_and_the_meant_network_is_named():
    with pytest.raises(ValueError, match=r"did you mean 192\.0\.2\.0/24\?"):
        parse_network("192.0.2.7/24")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("  ::1 ", "::1"),
    ],
)
def test_an_address_as_proxies_write_it(text: str, expected: str):
    assert parse_address(text) == ip_address(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.256",
        "[::1",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "::1,",
        "1.2.3.4 5",
    ],
)
def test_what_is_no_address_is_in_no_network(text: str):
    assert parse_address(text) is None


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str):
    parsed = parse_address(text)
    assert parsed is None or parsed in NetworkSet([parse_network(str(parsed))])


@given(addresses, st.integers(0, 65535))
def test_with_and_without_a_port_it_is_the_same_address(address, port: int):
    with_port = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    assert parse_address(with_port) == parse_address(str(address))


def test_the_same_number_is_another_address_in_the_other_version():
    compiled = NetworkSet([parse_network("192.0.2.1")])
    assert IPv4Address("192.0.2.1") in compiled
    assert IPv6Address(int(IPv4Address("192.0.2.1"))) not in compiled


def test_what_is_remembered_is_bounded_and_stays_right():
    compiled = NetworkSet([parse_network("10.0.0.0/16")])
    for number in range(NetworkSet.REMEMBERED + 100):
        address = IPv4Address(int(IPv4Address("10.0.0.0")) + number * 7)
        assert (address in compiled) is (number * 7 < 65536)
    assert len(compiled._known_4) <= NetworkSet.REMEMBERED


@pytest.mark.parametrize(
    "text",
    [
        "3221225985", "0xc0000201", "192.0.2.01", "192.0.2.1/24", "192.0.2.1:x", "192.0.2.1:123456", "192.0.2.1:+1",
        "192.0.2.1, 192.0.2.2", "[2001:db8::1]x", "[192.0.2.1]", "[192.0.2.1]:80", "2001:db8::1::2",
        "\u0661\u0669\u0662.0.2.1", "192\u30020\u30022\u30021", "192.0.2.1\x00", "192.0.2.1\r\nX: y",
        "::ffff:192.0.2.1:80",
    ],
)  # fmt: skip
def test_what_only_looks_like_an_address_is_nobody(text: str):
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("::192.0.2.1", "::c000:201"),  # deprecated "compatible" addresses are not the IPv4 ones
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
    ],
)
def test_only_mapped_addresses_are_the_ipv4_ones(text: str, address: str):
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    ("text", "network"), [("::ffff:192.0.2.0/120", "192.0.2.0/24"), ("::ffff:0:0/96", "0.0.0.0/0")]
)
def test_a_network_of_mapped_addresses_is_the_ipv4_one(text: str, network: str):
    assert str(parse_network(text)) == network
