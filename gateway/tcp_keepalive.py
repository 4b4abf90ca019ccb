"""Enable TCP keep-alive on a connection. It detects that the peer of a silent connection is gone: a tunnel's caller or backend."""

import socket
from asyncio import BaseTransport
from typing import Final

_IDLE_S: Final = 60
_INTERVAL_S: Final = 15
_PROBES: Final = 4


def enable_tcp_keepalive(transport: BaseTransport | None) -> None:
    """Enable TCP keep-alive (tcp(7)). The system then closes the connection two minutes after the peer has gone."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
