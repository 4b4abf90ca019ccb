"""Raise the limit on open files (RLIMIT_NOFILE), and derive from it how many connections callers may hold."""

import resource
from typing import Final

_MOST: Final = 1_048_576  # where the system sets no hard limit
_FOR_CALLERS: Final = 0.75  # of all; the rest is for backends, the registry and the log
_CALLERS: Final = 10_000  # some 10 KiB of memory each


def raise_file_limit() -> None:
    """Raise the soft limit on open files to the hard one. It is low by default for programs that use select(2), which we do not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def current_file_limit() -> int:
    """The soft limit on open files of this process, as it is now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft


def default_connection_limit() -> int:
    """How many connections callers may hold by default. The limit on open files allows as many."""
    return min(_CALLERS, max(16, int(current_file_limit() * _FOR_CALLERS)))
