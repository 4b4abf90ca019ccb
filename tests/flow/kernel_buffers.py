"""What the kernel may hold of what one side sends while the other does not read: tests of backpressure count it in."""

from pathlib import Path
from typing import Final

_LARGEST_ELSEWHERE: Final = 8 * 1024 * 1024


def _largest(name: str) -> int:
    try:
        return int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2])
    except OSError:
        return _LARGEST_ELSEWHERE


# Bytes of one connection in one direction: a send and a receive buffer, which the kernel lets grow up to these (tcp(7)).
ONE_CONNECTION: Final = _largest("tcp_wmem") + _largest("tcp_rmem")
# From the caller to the backend, or back.
TO_THE_OTHER_SIDE: Final = 2 * ONE_CONNECTION
