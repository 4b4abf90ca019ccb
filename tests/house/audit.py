"""Ask whether the pinned dependencies have known vulnerabilities: `python -m tests.house.audit`, by pip-audit.

pip-audit ends well also where the index that is asked knows no vulnerabilities at all, as a mirror does: each package is then
"skipped", and nothing was found because nothing was looked at. That is told here, and is no success.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EX_FOUND, EX_UNAVAILABLE = 1, 69


def judge(report: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit code and the lines to show for pip-audit's report in JSON."""
    dependencies = report["dependencies"]
    skipped = [found for found in dependencies if "skip_reason" in found]
    asked = len(dependencies) - len(skipped)
    lines = [
        f"{found['name']} {found['version']}: {one['id']}, fixed in {', '.join(one['fix_versions']) or 'no release yet'}"
        for found in dependencies
        for one in found.get("vulns", ())
    ]
    if not asked:
        return EX_UNAVAILABLE, [
            f"none of the {len(skipped)} pinned packages could be looked up, so nothing is known of them.",
            "The index that pip uses tells no vulnerabilities; run this where https://pypi.org can be reached.",
        ]
    if skipped:
        names = ", ".join(found["name"] for found in skipped)
        lines.append(f"not looked up, since the index does not know them: {names}")
    found = sum(len(one.get("vulns", ())) for one in dependencies)
    lines.append(f"{asked} packages looked up: {found or 'no'} known vulnerabilities")
    return EX_FOUND if found else 0, lines


def main() -> int:
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pip_audit",
                "--requirement",
                "constraints.txt",
                "--no-deps",
                "--disable-pip",
            ),
            *("--format", "json", "--progress-spinner", "off"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        code, lines = judge(json.loads(done.stdout))
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        code, lines = EX_UNAVAILABLE, [f"pip-audit could not ask for vulnerabilities: {reason[:300]}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
