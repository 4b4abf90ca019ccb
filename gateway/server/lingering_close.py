"""Lingering close: read and drop what still arrives, so that the last response reaches the caller.

To close a connection on which bytes lie unread resets it, and a reset makes the caller's system throw away what it has
not read yet (RFC 9112 section 9.6). So after the last answer our side alone is closed, and what still comes is read and
dropped, until the caller closes, or keeps us waiting.
"""

import contextlib
import fcntl
import struct
import termios
from asyncio import Transport
from typing import Final

LINGER_S: Final = 5.0  # how long a caller who has the whole answer may take to close
SEND_TIMEOUT_S: Final = 60.0  # a caller who has taken nothing for so long is not going to
_MOST_BYTES: Final = 64 * 1024 * 1024


class LingeringClose:
    """The state of one lingering close. It counts the bytes dropped, and knows whether the caller still reads."""

    __slots__ = ("_dropped", "_since", "_unsent")

    def __init__(self, now: float) -> None:
        self._dropped = 0
        self._unsent = -1
        self._since = now  # when a part of the answer was last seen to leave

    def try_drop(self, size: int) -> bool:
        """Count `size` more bytes as dropped. Returns False where they are more than may be dropped: abort then."""
        self._dropped += size
        return self._dropped <= _MOST_BYTES

    def caller_still_reads(self, transport: Transport, now: float) -> bool:
        """Whether the caller still reads the response.

        What is unsent at `now` decides. A caller who still reads gets another `LINGER_S`.
        """
        unsent = _unsent(transport)
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now
        return unsent > 0 and now - self._since < SEND_TIMEOUT_S


def _unsent(transport: Transport) -> int:
    """Bytes that wait here or that the caller's system has not confirmed (tcp(7), SIOCOUTQ)."""
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):
            size += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return size
