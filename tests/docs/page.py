"""Runs a page of the documentation as its reader would: every `$ command` of its console blocks, in one shell.

What stands below a command is what it prints: each such line must come, in any place of the output, with `…` for whatever
differs from run to run. A block behind `<!-- not run: why -->` is left out; one inside a comment is run, and not shown. Port 8080 becomes a free one.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.ports import free_port
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n+)?```console\n(.*?)```", re.DOTALL)
_END = "--end-of-command--"


class Command(NamedTuple):
    text: str
    expected: list[str]


def commands(page: Path) -> Iterator[Command]:
    for skipped, block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if skipped:
            continue
        current: Command | None = None
        for line in block.replace("\\\n", "\\\0").splitlines():
            if line.startswith("$ "):
                if current is not None:
                    yield current
                current = Command(re.sub("\\\\\0\\s*", " ", line[2:]), [])
            elif line.strip():
                assert current is not None, f"{page}: output without a command"
                current.expected.append(line)
        if current is not None:
            yield current


def files(page: Path) -> Iterator[tuple[str, str]]:
    """Scripts that the page shows: a block of Python behind a paragraph that names its file, as in "a script `NAME.py`"."""
    text = page.read_text(encoding="utf-8")
    for name, content in re.findall(r"script `(\w+\.py)`[^`]*?\n\n```python\n(.*?)```", text, re.DOTALL):
        yield name, content


class Reader:
    """A person at a shell in an empty folder, with `chips`, `python` and the backends' languages installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        home = folder / "home"
        home.mkdir(parents=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "JULIA", "JULIA_DEPOT_PATH", "GENIE_MANIFEST") if name in os.environ}
        environ = {
            **kept,
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "CHIPS_SERVER__PORT": str(self.port),
            "CHIPS_SERVER__HOST": "127.0.0.1",
            "NO_COLOR": "1",
            "COLUMNS": "160",
        }
        self.home = folder / "work"
        self.home.mkdir()
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder / "work",
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        python = shlex.quote(sys.executable)
        self._type(f"python() {{ {python} \"$@\"; }}; chips() {{ {python} -m gateway.cli \"$@\"; }}; export -f python chips")

    def run(self, command: Command) -> str:
        """Type one command; return what it printed. Raises AssertionError where that is not what the page says."""
        text = command.text.replace("8080", str(self.port))
        in_background = text.endswith(" &")
        if in_background:
            text = text.removesuffix(" &") + f" >{self.folder}/background.log 2>&1 &"
        output, code = self._type(text)
        assert code == 0, f"$ {command.text}\n{output}"
        if in_background and "serve" in text:
            self._wait_for_the_gateway()
        shown = output.replace(str(self.port), "8080")
        for line in command.expected:
            parts = re.split(r"\s*…\s*", re.sub(r"\s+", " ", line.strip()))
            pattern = ".*".join(map(re.escape, parts))
            assert re.search(pattern, re.sub(r"[ \t]+", " ", shown)), f"$ {command.text}\nno {line!r} in:\n{shown}"
        return shown

    def _type(self, text: str) -> tuple[str, int]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{text}\n_code=$?; echo; echo {_END} $_code\n")
        self._shell.stdin.flush()
        output = ""
        for line in self._shell.stdout:
            if line.startswith(_END):
                return output, int(line.split()[1])
            output += line
        raise AssertionError(f"the shell ended at: {text}\n{output}")

    def _wait_for_the_gateway(self) -> None:
        give_up_at = time.monotonic() + patience(30)
        while time.monotonic() < give_up_at:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=patience(5)):
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "background.log").read_text())

    def close(self) -> None:
        """End what the page started: models that were deployed here, the gateway, the shell."""
        self._type(
            "for note in ~/.local/state/chips/local/*/*/*.json; do [ -e \"$note\" ] && "
            'chips undeploy "$(basename "$(dirname "$(dirname "$note")")")" --version "$(basename "$(dirname "$note")")" --target local --force; done'
        )
        os.killpg(self._shell.pid, signal.SIGTERM)
        try:
            self._shell.communicate(timeout=patience(15))
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.communicate()
