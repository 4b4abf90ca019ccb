"""Find free TCP ports for processes that must be told theirs before they start."""

import itertools
import random
import socket
from collections.abc import Container
from typing import Final

# Below the ports that Linux gives to outgoing connections (32768 and up): one of those can be taken at any moment, also
# between this look and the process's own bind, and after a reboot, when a local backend needs its port again.
PORTS: Final = range(21_000, 32_000)

# The system's, since a seed that several processes share would lead all of them to the same port.
_random: Final = random.SystemRandom()


def free_port(taken: Container[int] = ()) -> int:
    """A port of PORTS on which nobody listens, and which is not in `taken`.

    Drawn at random, so that two processes that ask at once seldom get the same. Raises OSError where there is none.
    """
    first = _random.choice(PORTS)
    for port in itertools.chain(range(first, PORTS.stop), range(PORTS.start, first)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def is_free(port: int) -> bool:
    """Whether a process could listen on `port`, on all interfaces."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: what has just ended is no hindrance
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104  (backends listen on all interfaces)
        except OSError:
            return False
    return True
