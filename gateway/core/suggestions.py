"""Suggestions ("did you mean …?") for an unknown name."""

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str], *, else_all: bool = False, cutoff: float = 0.6) -> str:
    """Suggest the known name closest to `name`.

    It is the end of a sentence: `; did you mean …?`. Without a close one: all known names if `else_all`, else nothing.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(known)}" if else_all else ""
