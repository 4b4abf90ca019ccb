"""Write the reference pages that are made from the code: `python -m tests.house.reference`."""

import sys
from pathlib import Path

from tests.house import cli_page, settings_page

FOLDER = Path(__file__).parents[2] / "docs/reference"
PAGES = {"cli.md": cli_page.render, "settings.md": settings_page.render}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/reference/{name}\n")


if __name__ == "__main__":
    main()
