"""Ports for processes that are told theirs."""

import errno
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import free_ports
from gateway.free_ports import PORTS, claim_free_port, is_free


def test_what_is_found_can_be_listened_on_and_is_then_taken():
    port = claim_free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)


def test_no_outgoing_connection_takes_one():
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if first < PORTS.stop:
        pytest.skip(f"this machine gives the ports {first} to {last} to outgoing connections")
    assert PORTS.stop <= first


def test_a_seed_that_processes_share_does_not_lead_them_to_one_port():
    random.seed(1)
    first = {claim_free_port() for _ in range(5)}
    random.seed(1)
    assert {claim_free_port() for _ in range(5)} != first


TWO_LEFT = """
import sys
from gateway import free_ports
from gateway.free_ports import PORTS, claim_free_port
print(claim_free_port(set(PORTS) - {int(port) for port in sys.argv[1:]}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_nobody_gets_a_port_that_was_just_given_to_another():
    first, second = claim_free_port(), claim_free_port()
    assert first != second
    with pytest.raises(OSError, match="is free"):
        claim_free_port(set(PORTS) - {first, second})
    elsewhere = [sys.executable, "-c", TWO_LEFT, str(first), str(second)]
    asked = subprocess.run(elsewhere, capture_output=True, text=True, check=False)
    assert "is free" in asked.stderr, asked.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_a_preferred_port_is_given_to_one_of_two():
    port = claim_free_port()
    os.close(free_ports._claims.pop())
    assert claim_free_port(prefer=port) == port
    assert claim_free_port(prefer=port) != port


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_only_some_claims_are_kept():
    for _ in range(100):
        claim_free_port()
    assert len(free_ports._claims) == free_ports._CLAIMS


def test_where_all_are_taken_it_says_so():
    with pytest.raises(OSError, match="no port from 21000 to 31999 is free"):
        claim_free_port(PORTS)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
@pytest.mark.parametrize("where", ["socket", "bind"])
def test_where_nothing_may_be_claimed_ports_are_found_all_the_same(
    where: str, monkeypatch: pytest.MonkeyPatch
):
    class Refused(socket.socket):
        def __init__(self, family: int = -1, *more: Any) -> None:
            if where == "socket" and family == socket.AF_UNIX:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *more)

        def bind(self, address: Any, /) -> None:
            if isinstance(address, str):
                raise PermissionError(errno.EACCES, "Permission denied")
            super().bind(address)

    monkeypatch.setattr("gateway.free_ports.socket.socket", Refused)
    assert claim_free_port() in PORTS
