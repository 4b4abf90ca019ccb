"""Encode and decode the chunked transfer coding (RFC 9112 section 7.1).

It is read strictly: what two programs might frame differently is refused.
"""

import re
from typing import Final

from gateway.core.header_classification import is_allowed_trailer

# A blank may stand before an extension (RFC 9112 section 7.1.1), but not after a size that has none.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;[\t \x21-\x7e\x80-\xff]*)?\r\n")
_SIZE_LINE_LIMIT: Final = 256  # with extensions, which are read over
_TRAILER: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t \x21-\x7e\x80-\xff]*"
)  # linear, on any input
_TRAILERS_LIMIT: Final = 8192

_AT_SIZE: Final = -1
_AT_END_OF_CHUNK: Final = -2
_AT_TRAILERS: Final = -3
_AT_END: Final = -4

# RFC 9110 section 6.5.1: fields that frame, route or authenticate a message mean nothing at its end, or worse.
_NOT_AT_THE_END: Final = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"host",
        b"location",
        b"content-location",
        b"link",
        b"refresh",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
    }
)


class ChunkedDecoder:
    """Decodes a chunked body, piece by piece, as it arrives.

    `feed` it what arrives; it returns the pieces of the body. `done` is true once the last chunk has been read.
    """

    __slots__ = ("_left", "_tail", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._left = _AT_SIZE  # bytes left of the present chunk, or where we stand
        self._tail = b""
        self.done = False
        self.rest = b""  # what came after the body
        self.trailers = b""  # field lines, each with its CRLF

    def feed(self, data: bytes) -> list[bytes]:  # noqa: C901, PLR0912  (a state machine reads best in one piece)
        """Decode what has arrived into pieces of the body.

        Raises ValueError where the framing is not valid; the connection cannot be used after that.
        """
        if self._tail:
            data = self._tail + data
            self._tail = b""
        pieces: list[bytes] = []
        position, size, left = 0, len(data), self._left
        while True:
            if left > 0:
                if position == size:
                    break
                piece = data[position : position + left] if position or left < size else data
                pieces.append(piece)
                position += len(piece)
                left -= len(piece)
                if left:
                    break
                left = _AT_END_OF_CHUNK
            if left == _AT_END_OF_CHUNK:
                if size - position < 2:
                    if size > position and data[position] != 13:
                        raise ValueError("a chunk is longer than its size")
                    break
                if data[position : position + 2] != b"\r\n":
                    raise ValueError("a chunk is longer than its size")
                position += 2
                left = _AT_SIZE
            if left == _AT_SIZE:
                match = _SIZE.match(data, position)
                if match is None or match.end() - position > _SIZE_LINE_LIMIT:
                    self._refuse_size(data, position)
                    break
                position = match.end()
                left = int(match[1], 16) or _AT_TRAILERS
            if left == _AT_TRAILERS:
                position = self._read_trailers(data, position)
                if not self.done:
                    break
                left = _AT_END
                self.rest = data[position:]
                position = size
                break
            if left == _AT_END:
                raise ValueError("the body has ended")
        self._left = left
        if position < size:
            self._tail = data[position:]
        return pieces

    @staticmethod
    def _refuse_size(data: bytes, position: int) -> None:
        line = data[position : position + _SIZE_LINE_LIMIT + 1]
        if (
            len(line) > _SIZE_LINE_LIMIT
            or b"\n" in line
            or (line and line[0] not in b"0123456789abcdefABCDEF")
        ):
            raise ValueError("a chunk's size is not valid")

    def _read_trailers(self, data: bytes, position: int) -> int:
        while True:
            end = data.find(b"\r\n", position)
            if end < 0:
                if len(data) - position + len(self.trailers) > _TRAILERS_LIMIT:
                    raise ValueError("the trailers are too long")
                return position
            if end == position:
                self.done = True
                return end + 2
            if len(self.trailers) + end - position > _TRAILERS_LIMIT:
                raise ValueError("the trailers are too long")
            match = _TRAILER.fullmatch(data, position, end)
            if match is None:
                raise ValueError("a trailer is not valid")
            if match[1].lower() not in _NOT_AT_THE_END and is_allowed_trailer(match[1]):
                self.trailers += data[position : end + 2]
            position = end + 2


def encode_chunk(piece: bytes) -> bytes:
    """Encode `piece` as one chunk. It must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


LAST_CHUNK: Final = b"0\r\n\r\n"


def encode_last_chunk(trailers: bytes) -> bytes:
    """Encode the last chunk of a body, with `trailers`. The trailers are field lines."""
    return b"0\r\n" + trailers + b"\r\n" if trailers else LAST_CHUNK
