"""The tables of a results file in a page, between two markers."""

from pathlib import Path


def rewrite(page: Path, name: str, text: str) -> None:
    """Put `text` between the page's markers of this name. Raises SystemExit where it has none."""
    begin, end = markers(name)
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"error: {page} has no markers {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def shown(page: Path, name: str) -> str:
    """What stands between the markers."""
    begin, end = markers(name)
    return page.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].strip()


def markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
