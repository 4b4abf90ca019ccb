"""Where backends may be: every way to write an address that is not public, and every name that is not listed."""

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.core.ip_network_set import parse_network
from gateway.upstream.egress_policy import EgressPolicy, EgressRefused

CLOUD = EgressPolicy(
    "cloud", hosts=["*.Example.com", "one.example.org"], networks=[parse_network("10.8.0.0/24")]
)
LOCAL = EgressPolicy("local")

NOWHERE = [
    "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    "100.100.100.200", "168.63.129.16", "192.0.0.192",
    f"0.{0}.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    "::169.254.169.254", "not-an-address", "", "2130706433",
]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "fc00::1", "::ffff:10.0.0.1",
    "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "100.64.0.1", "198.18.0.1", "240.0.0.1",
    "255.255.255.255",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "2001:4860:4860::8888", "216.239.32.53", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", NOWHERE)
@pytest.mark.parametrize(
    "egress_policy", [CLOUD, LOCAL, EgressPolicy("local", networks=[parse_network("0.0.0.0/0")])]
)
def test_secrets_of_a_machine_are_never_reached(egress_policy: EgressPolicy, address: str):
    with pytest.raises(EgressRefused):
        egress_policy.check_address(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_in_the_cloud_private_addresses_are_refused(address: str):
    with pytest.raises(EgressRefused):
        CLOUD.check_address(address)
    with pytest.raises(UpstreamUnreachable) as caught:
        CLOUD("wine.run.app", ["8.8.8.8", address])
    assert address not in caught.value.detail


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_fine(address: str):
    CLOUD.check_address(address)
    LOCAL.check_address(address)
    CLOUD("wine-abc.a.run.app", [address])


def test_private_networks_may_be_named():
    CLOUD.check_address("10.8.0.7")
    CLOUD.check_address("::ffff:10.8.0.7")
    CLOUD.check_host("10.8.0.7")
    with pytest.raises(EgressRefused):
        CLOUD.check_address("10.8.1.7")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "fc00::1"])
def test_on_a_machine_of_ones_own_its_networks_are_open(address: str):
    LOCAL.check_address(address)


@pytest.mark.parametrize("host", ["a.run.app", "A.Run.App", "a.run.app.", "x.example.com", "one.example.org"])
def test_hosts_that_may_be_registered(host: str):
    CLOUD.check_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "run.app", "evilrun.app", "a.run.app.evil.com", "evil.com", "example.com", "two.example.org", "localhost", "",
        "metadata.google.internal", "metadata", "127.0.0.1", "8.8.8.8", "[::1]", "[2001:4860:4860::8888]", "2130706433",
        "0x7f.0.0.1", "127.1", "a.run.app%00.evil.com", "a.run.\u0430pp",
    ],
)  # fmt: skip
def test_hosts_that_may_not(host: str):
    with pytest.raises(EgressRefused):
        CLOUD.check_host(host)


def test_registering_looks_at_what_the_name_resolves_to(monkeypatch: pytest.MonkeyPatch):
    import socket

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(EgressRefused, match=r"10\.0\.0\.1"):
        CLOUD.resolve_and_check_url("https://wine.run.app/x")
    found[0] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))
    CLOUD.resolve_and_check_url("https://wine.run.app:8443")
