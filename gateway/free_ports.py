"""Find and claim free TCP ports. They are for processes that must be told theirs before they start."""

import errno
import itertools
import os
import random
import socket
import sys
from collections import deque
from collections.abc import Container
from typing import Final

# Below the ports that Linux gives to outgoing connections (32768 and up): one of those can be taken at any moment, also
# between this look and the process's own bind, and after a reboot, when a local backend needs its port again.
PORTS: Final = range(21_000, 32_000)

# The system's, since a seed that several processes share would lead all of them to the same port.
_random: Final = random.SystemRandom()

# What is given to one caller must not be given to another before its server listens. Each port is claimed by the name of a
# socket that belongs to the machine, as ports do, and that the system frees when the process ends (unix(7): abstract sockets).
_CLAIMS: Final = 32
_claims: Final[deque[int]] = deque()


def claim_free_port(taken: Container[int] = (), *, prefer: int | None = None) -> int:
    """Claim a free TCP port that is not in `taken`, and return it: `prefer` where that one is free.

    Else it is one of PORTS, below the ephemeral ones, on which nobody listens. Two calls at once get different ports, also in two
    processes (on Linux; elsewhere they only seldom get the same): a port is given again when this process has got 32 others
    or has ended. Raises OSError where there is none.
    """
    if prefer is not None and is_free(prefer) and _claim(prefer):
        return prefer
    first = _random.choice(PORTS)
    for port in itertools.chain(range(first, PORTS.stop), range(PORTS.start, first)):
        if port not in taken and is_free(port) and _claim(port):
            return port
    raise OSError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def is_free(port: int) -> bool:
    """Whether `port` is free. A process could listen on it, on all interfaces."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: what has just ended is no hindrance
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104  (backends listen on all interfaces)
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """Claim `port` for a while. False where it was given to somebody a moment ago.

    Where such sockets may not be made, as in some sandboxes, nothing is claimed.
    """
    if sys.platform != "linux":
        return True
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            claim.bind(f"\0chips-port-{port}")
            _claims.append(claim.detach())
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    while len(_claims) > _CLAIMS:
        os.close(_claims.popleft())
    return True
