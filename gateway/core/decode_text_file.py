"""Decode text files that people write, strictly as UTF-8.

A byte order mark is refused. Errors name the encoding that was found instead.
"""

import codecs
from typing import Final

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF8, "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def decode_text_file(content: bytes) -> str:
    """Decode the bytes of a text file as UTF-8; ValueError where they are not.

    A byte order mark is refused, too. The error names the encoding that was found instead, and says what to do.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise ValueError(_instead(encoding))
    if b"\0" in content[:4]:  # UTF-16 or UTF-32 without a mark: ASCII begins with or is followed by zeros
        raise ValueError(_instead("UTF-16 or UTF-32"))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}; save it as UTF-8"
        ) from None


def _instead(encoding: str) -> str:
    return (
        f"is {encoding}: save it as UTF-8 without a byte order mark "
        "(in PowerShell 7: Set-Content -Encoding utf8NoBOM)"
    )
