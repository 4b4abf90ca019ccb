"""Code and pages are in plain modern English: words that readers stumbled over do not come back."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITH_COMMENTS = {
    "tests": ["*.py"],
    "benchmarks": ["*.py"],
    "examples": ["*.py"],
    "backends/python": ["*.py"],
    "backends/r": ["*.R"],
    "backends/julia": ["*.jl"],
    "deploy/terraform": ["*.tf"],
}
ARCHAIC = re.compile(
    r"\b(whoever|whomever|whom|shall|spoilt|beside|unwell|unwelcome|lest|whereof|thereof|commonest|tells of|for they|for it would|the short of it|anew|mended|spoils?|goes by it|held against|holds? a backend against|nobody but|whosoever|wherein|whence|hence|upon|whilst|amongst|naught|thither|therein|thereby|hereby|erstwhile|notwithstanding|for (?:importing|there is|there are|one must|nobody|of many|several threads))\b",
    re.IGNORECASE,
)


def _in_comments(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and docstrings: what a test sends, and what its variables are called, may be any word."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":  # R, Julia, Terraform
        yield from (
            (number, line.partition("#")[2])
            for number, line in enumerate(text.splitlines(), 1)
            if "#" in line
        )
        return
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = token.type == tokenize.STRING and before in _STARTS and token.string.endswith('"""')
        if token.type == tokenize.COMMENT or is_docstring:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line
        if token.type != tokenize.COMMENT:
            before = token.type


_STARTS = (tokenize.NEWLINE, tokenize.INDENT, tokenize.NL)


def test_no_archaic_words():
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "backends/CONTRACT.md"]
    pages += [ROOT / "deploy/README.md", *ROOT.glob("backends/*/README.md")]
    pages += [path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "adr"]
    pages += (ROOT / "gateway").rglob("*.py")
    lines: list[tuple[Path, Iterator[tuple[int, str]]]] = [
        (path, enumerate(path.read_text(encoding="utf-8").splitlines(), 1)) for path in pages
    ]
    for folder, kinds in WITH_COMMENTS.items():
        for kind in kinds:
            paths = (path for path in (ROOT / folder).rglob(kind) if path != Path(__file__))
            lines += [(path, _in_comments(path)) for path in paths if "zoo" not in path.parts]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path, numbered in lines
        for number, line in numbered
        for match in ARCHAIC.finditer(line)
    ]
    assert not found, "CONTRIBUTING.md says how we write:\n" + "\n".join(found)
