"""Malformed and odd messages as data, one a line, grown from RFC 9110 and 9112 and the kinds of published desync research.

A line of requests.txt or answers.txt is `name | what happens | bytes`, the bytes with Python's escapes. What happens is the
status that the caller gets, and, where the message passes, its body as the other side reads it (`-`: empty). `; plain …` says what
happens on the plain path where that differs. In requests, `{head}` is a request line for a path of the case's own, a Host
and a key; `{key}` the key alone; `{path}` the case's path; `{hidden}` a whole request that must never be seen as one. In
answers, `{nothing}` is no byte at all, `; close` at the end of what happens means that the backend closes after it; `cut` is an answer that has begun and
breaks off.
"""

from ast import literal_eval
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent


class Case(NamedTuple):
    name: str
    happens: dict[str, str]  # by path
    raw: bytes
    closes: bool  # the backend closes after it

    def outcome(self, path: str) -> tuple[str, bytes | None]:
        """The status (or `cut`), and the body where one is said."""
        status, blank, body = self.happens[path].partition(" ")
        if not blank:
            return status, None
        return status, b"" if body == "-" else literal_eval(f"b'{body}'")


def load(file: str) -> list[Case]:
    cases = []
    for line in (_FOLDER / file).read_text("ascii").splitlines():
        if not line or line.startswith("#"):
            continue
        name, outcome, raw = line.split(" | ", 2)
        closes = outcome.endswith(" ; close")
        fast, differs, plain = outcome.removesuffix(" ; close").partition(" ; plain ")
        happens = {"fast": fast, "plain": plain if differs else fast}
        cases.append(Case(name, happens, literal_eval(f"b'{raw}'").replace(b"{nothing}", b""), closes))
    assert len({case.name for case in cases}) == len(cases), "two cases of one name"
    return cases
