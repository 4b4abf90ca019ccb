"""What the site needs beyond MkDocs: pages outside of docs/, and links that hold in the repository and on the site.

MkDocs calls these functions by name (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Repository path -> path on the site, for pages that stand where GitHub and editors look for them.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "backends/CONTRACT.md": "backends/CONTRACT.md",
    "backends/python/README.md": "backends/python/README.md",
    "backends/r/README.md": "backends/r/README.md",
    "backends/julia/README.md": "backends/julia/README.md",
    "deploy/README.md": "deploy/README.md",
    "benchmarks/results/latest.md": "benchmarks/results/latest.md",
    "benchmarks/results/latest.svg": "benchmarks/results/latest.svg",
}
SECTIONS = {
    "Tutorials": "tutorial",
    "How to": "how-to",
    "Operations": "operations",
    "Reference": "reference",
    "Explanation": "explanation",
}
_LINK = re.compile(r"(!?)\[([^\]\[]*(?:\[[^\]]*\][^\]\[]*)*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages that mkdocs.yml does not name to the end of their section: the decisions, and what is new."""
    nav: list[dict[str, list[Any]]] = config.nav or []
    named = set(_pages(nav))
    for section in nav:
        for title, entries in section.items():
            if folder := SECTIONS.get(title):
                found = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / folder).glob("*.md"))
                entries.extend(page for page in found if page not in named)
            if title == "Explanation":
                entries.append(
                    {"Decisions": sorted(f"adr/{path.name}" for path in (DOCS / "adr").glob("*.md"))}
                )
    return config


def _pages(entries: Any) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    elif entries:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from _pages(entry)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for inside, on_site in OUTSIDE.items():
        files.append(File.generated(config, on_site, abs_src_path=str(ROOT / inside)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make each relative link one of the site; what the site does not have, code, leads to the repository or nowhere."""
    source = Path(str(page.file.abs_src_path)).resolve()

    def resolved(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or ":" in path:
            return match[0]
        wanted = (source.parent / unquote(path)).resolve()
        on_site = _on_site(wanted, files)
        if on_site is not None:
            relative = os.path.relpath(on_site, Path(page.file.src_uri).parent)
            return f"{image}[{text}]({relative}{'#' + anchor if anchor else ''})"
        if not wanted.exists():
            return match[0]  # MkDocs reports it
        inside = wanted.relative_to(ROOT).as_posix()
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{inside})" if config.repo_url else text

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(resolved, part) for part in parts)


def _on_site(path: Path, files: Files) -> str | None:
    if not path.is_relative_to(ROOT):
        return None
    inside = path.relative_to(ROOT).as_posix()
    uri: Any = OUTSIDE.get(inside)
    if uri is None and path.is_relative_to(DOCS):
        uri = path.relative_to(DOCS).as_posix()
    return uri if uri is not None and files.get_file_from_path(uri) is not None else None
