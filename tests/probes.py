"""Looks at processes and ports that may end, or begin, at this very moment: an answer for each, and never an error.

A server that stops may refuse a connection, reset it during the handshake, take it and close it, or send half an answer.
A process that ends takes its entries of /proc away while they are read.
"""

import http.client
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tests.patience import patience

Found = TypeVar("Found")


def until(look: Callable[[], Found], why: str = "it did not come", *, within_s: float = 30.0) -> Found:
    """What `look` finds, as soon as that is true; AssertionError where nothing comes. `within_s` is for a quiet machine."""
    give_up_at = time.monotonic() + patience(within_s)
    while not (found := look()):
        assert time.monotonic() < give_up_at, why
        time.sleep(0.02)
    return found


def is_ready(url: str) -> bool:
    """Whether `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=patience(5)) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def is_closed(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=patience(5)).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # it closes just now, or is too busy to take it
        return False
    return False


def runs(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has waited for yet (proc(5): Z) does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def children(pid: int) -> list[int]:
    """The processes that a process has started; none where it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
