"""Code and pages are in plain modern English: words that readers stumbled over do not come back."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARCHAIC = re.compile(
    r"\b(whoever|whomever|whom|shall|spoilt|beside|unwell|unwelcome|lest|whereof|thereof|commonest|tells of|for they|for it would|the short of it|anew|mended|spoils?|goes by it|held against|holds? a backend against|nobody but|whosoever|wherein)\b",
    re.IGNORECASE,
)


def test_no_archaic_words():
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "backends/CONTRACT.md"]
    pages += [ROOT / "deploy/README.md", *ROOT.glob("backends/*/README.md")]
    pages += [path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "adr"]
    pages += (ROOT / "gateway").rglob("*.py")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in pages
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in ARCHAIC.finditer(line)
    ]
    assert not found, "CONTRIBUTING.md says how we write:\n" + "\n".join(found)
