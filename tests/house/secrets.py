"""Look for secrets in the files of this repository: `python -m tests.house.secrets`.

An API key of ours carries a checksum, so a real one is told from an example in the documentation without a list of
exceptions.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from gateway.core.api_keys import is_well_formed

ROOT = Path(__file__).parents[2]
_OURS = re.compile(r"chips_[0-9A-Za-z]{38}")
_OTHERS = {
    "a private key": re.compile(
        r"-----BEGIN (?:RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}"
    ),
    "a Google API key": re.compile(r"AIza[0-9A-Za-z_-]{35}"),
    "a Google access token": re.compile(r"ya29\.[0-9A-Za-z_-]{40,}"),
    "a service account's key": re.compile(r'"private_key_id":\s*"[0-9a-f]{40}"'),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{50,})"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}"),
    "a PyPI token": re.compile(r"\bpypi-[0-9A-Za-z_-]{50,}"),
    "a signed token": re.compile(r"\beyJ[0-9A-Za-z_-]{20,}\.eyJ[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{40,}"),
}
# Keys that open nothing, by which tests pin the form of a key for good.
_PUBLISHED = frozenset(
    re.findall(_OURS, (ROOT / "tests/unit/core/test_api_keys.py").read_text(encoding="utf-8"))
)
_MAX_BYTES = 2_000_000


def secrets_in(text: str) -> Iterator[tuple[int, str]]:
    """Line and kind of each secret in `text`."""
    for found in _OURS.finditer(text):
        if is_well_formed(found[0]) and found[0] not in _PUBLISHED:
            yield text.count("\n", 0, found.start()) + 1, "an API key of this gateway"
    for kind, pattern in _OTHERS.items():
        for found in pattern.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, kind


def files() -> Iterator[str]:
    """The names of the repository's files; without git, of all that .gitignore does not name."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    with contextlib.suppress(FileNotFoundError):
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if listed.returncode == 0:
            yield from filter(None, listed.stdout.decode().split("\0"))
            return
    ignored = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines())]

    def is_ignored(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in ignored)

    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not is_ignored(name)]
        for name in names:
            if not is_ignored(name):
                yield str((Path(folder) / name).relative_to(ROOT))


def main() -> int:
    problems = []
    for name in files():
        path = ROOT / name
        if path.is_file() and path.stat().st_size <= _MAX_BYTES:
            text = path.read_bytes().decode("utf-8", "replace")
            problems += [f"{name}:{line}: {kind}" for line, kind in secrets_in(text)]
    for problem in problems:
        sys.stdout.write(problem + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
