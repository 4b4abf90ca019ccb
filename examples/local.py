"""A file for a person's shell."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """Write `path`, which a shell reads by `. FILE`: `variables`, and `chips` and `python` on the PATH.

    Its owner alone can read it, since it holds keys.
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
