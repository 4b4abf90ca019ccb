"""Write the reference pages and the monitoring files that are made from the code: `python -m tests.house.reference`."""

import sys
from pathlib import Path

from tests.house import checks_page, cli_page, metrics_page, models_page, monitoring, settings_page

FOLDER = Path(__file__).parents[2] / "docs/reference"
PAGES = {
    "checks.md": checks_page.render,
    "cli.md": cli_page.render,
    "metrics.md": metrics_page.render,
    "models.md": models_page.render,
    "settings.md": settings_page.render,
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/reference/{name}\n")
    for name, render in monitoring.FILES.items():
        path = monitoring.FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(), encoding="utf-8")
        sys.stdout.write(f"wrote deploy/monitoring/{name}\n")


if __name__ == "__main__":
    main()
