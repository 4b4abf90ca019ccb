"""How pip reaches its index on this machine, for a system that shares its network: `pip_settings.py /path/of/pip.conf`.

Writes the file, and prints what it refers to on this machine: `file PATH` or `folder PATH`, one a line.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path


def main(target: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in sorted(
        listed.splitlines(), key=lambda line: line.startswith(":env:")
    ):  # the environment wins
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    lines = [f"{name} = {value.replace(chr(10), ' ')}" for name, value in settings.items()]
    target.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
    needed = set()
    for value in settings.values():
        for scheme, path in re.findall(r"(?:(file)://)?(/[^\s'/][^\s']*)", value):
            # The pages of an index link to files next to their folder.
            place = Path(path).parent if scheme else Path(path)
            if place.exists():
                needed.add(f"{'file' if place.is_file() else 'folder'} {place}")
    sys.stdout.writelines(f"{line}\n" for line in sorted(needed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
