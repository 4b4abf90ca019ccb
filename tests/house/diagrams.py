"""Draw docs/images/*.mmd as SVG, which GitHub, the site and a printer show alike: `make diagrams`.

Mermaid comes from npm, and runs in Debian's Chromium. Each picture carries the digest of its source, so that a test can
say which one is out of date without either.
"""

import asyncio
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from tests.console.conftest import CHROMIUM

FOLDER = Path(__file__).parents[2] / "docs/images"
MERMAID = "mermaid@11.17.2"
# One look for light and dark pages: mid-tones on a card of its own.
OPTIONS = """{startOnLoad: false, theme: "neutral", htmlLabels: false, flowchart: {htmlLabels: false}, deterministicIds: true,
  themeVariables: {fontFamily: "system-ui, sans-serif", fontSize: "14px"}}"""
_SIZE = re.compile(r'viewBox="[-0-9.]+ [-0-9.]+ ([0-9.]+) ([0-9.]+)"')
DRAW = (
    "async (text) => { mermaid.initialize("
    + OPTIONS
    + "); return (await mermaid.render('diagram', text)).svg; }"
)


def digest(source: Path) -> str:
    """What the picture of `source` carries."""
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def _mermaid(folder: Path) -> str:
    subprocess.run(["npm", "pack", "--silent", MERMAID], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (package,) = folder.glob("mermaid-*.tgz")
    with tarfile.open(package) as archive:
        script = archive.extractfile("package/dist/mermaid.min.js")
        assert script is not None
        return script.read().decode("utf-8")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = _mermaid(Path(folder))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.add_script_tag(content=script)
        for source in sorted(FOLDER.glob("*.mmd")):
            svg = str(await page.evaluate(DRAW, source.read_text(encoding="utf-8")))
            width, height = (round(float(side)) for side in _SIZE.findall(svg)[0])
            svg = svg.replace('width="100%"', f'width="{width}" height="{height}"', 1)
            svg = re.sub(r'(<svg [^>]*style=")', r"\1background: white; ", svg, count=1)
            picture = source.with_suffix(".svg")
            picture.write_text(
                f"<!-- {digest(source)}: drawn from {source.name} by make diagrams -->\n{svg}\n",
                encoding="utf-8",
            )
            sys.stdout.write(f"wrote docs/images/{picture.name}\n")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
