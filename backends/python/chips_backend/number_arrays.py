"""Long arrays of numbers: cut out of a JSON text, and parsed straight into NumPy by simdjson, where it is installed.

What is cut out is replaced by a string, the mark, so that the rest can be parsed as usual. Where the mark is found as a value, and the
cut array is JSON by itself, the text was JSON with that array as that value. A reader takes a result from here only for these; everything
else it reads as if this module did not exist.
"""

import contextlib
import re
from typing import Any, Final
from uuid import uuid4

import numpy as np

Parser: Any = None
with contextlib.suppress(ImportError):  # it has no wheel for every platform
    import simdjson

    Parser = simdjson.Parser

LONG_BYTES: Final = 1024  # of text, from which cutting pays
_MARK: Final = uuid4().hex  # no caller knows it
_DATA: Final = re.compile(rb'"data"\s*:\s*(?=\[[ \t\r\n]*[-0-9])')
_INSTANCES: Final = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"instances"[ \t\r\n]*:[ \t\r\n]*(?=\[\[)')
_COMMA, _OPEN, _CLOSE, _BLANK = b",[] "

Cut = dict[bytes, memoryview]  # the array's text by its mark's


def cut_data(content: bytes) -> tuple[bytes, Cut]:
    """The text with a mark for each long flat array of numbers that is called "data", and what was cut out."""
    cut: Cut = {}
    if Parser is None or len(content) < LONG_BYTES:
        return content, cut
    whole = memoryview(content)
    pieces: list[bytes | memoryview] = []
    at = 0
    while (found := _DATA.search(content, at)) is not None:
        begin, end = found.end(), content.find(b"]", found.end()) + 1
        if end == 0:
            break
        if end - begin < LONG_BYTES:
            pieces.append(whole[at:end])
        else:
            mark = b'"%s%d"' % (_MARK.encode(), len(cut))
            cut[mark] = whole[begin:end]
            pieces += [whole[at:begin], mark]
        at = end
    return (b"".join([*pieces, whole[at:]]), cut) if cut else (content, cut)


def cut_instances(content: bytes) -> tuple[bytes, Cut]:
    """The text with a mark for its long array of "instances" that are arrays, where it begins with these."""
    found = _INSTANCES.match(content) if Parser is not None and len(content) >= LONG_BYTES else None
    end = content.rfind(b"]]") + 2 if found is not None else 1
    if found is None or end == 1:
        return content, {}
    mark = b'"%s0"' % _MARK.encode()
    return content[: found.end()] + mark + content[end:], {mark: memoryview(content)[found.end() : end]}


def floats(array: memoryview) -> Any:
    """The values of a JSON array of numbers as float64; None where it is not one, or holds an integer of more than 64 bits.

    It must hold no array: simdjson would take the values in it.
    """
    try:
        return np.frombuffer(Parser().parse(array).as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError, AttributeError, MemoryError):
        return None


def matrix(array: memoryview, width: int) -> Any:
    """The values of a JSON array of arrays of `width` numbers as float64 [rows, width]; None where it is not one.

    Each row must be opened directly behind the comma, or behind one blank, and be closed directly before the next one: that is how it
    is seen that the rows are as long as each other.
    """
    text = np.frombuffer(array, np.uint8)
    commas = np.flatnonzero(text == _COMMA)
    rows, rest = divmod(len(commas) + 1, width)
    between = commas[width - 1 :: width]  # rows, where each is as long as it should be
    if rest or text[0] != _OPEN or text[1] != _OPEN:
        return None
    blank = 1 if rows > 1 and text[between[0] + 1] == _BLANK else 0
    is_rows = (
        np.count_nonzero(text == _OPEN) == np.count_nonzero(text == _CLOSE) == rows + 1
        and bool((text[between - 1] == _CLOSE).all())
        and bool((text[between + 1 + blank] == _OPEN).all())
    )
    values = floats(array) if is_rows else None
    return values.reshape(rows, width) if values is not None and len(values) == rows * width else None
