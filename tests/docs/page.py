"""Runs a page of the documentation as its reader would: every `$ command` of its console blocks, in one shell.

The lines below a command are what it prints: each must appear somewhere in the output, with `…` for whatever differs from run
to run. A block that follows the words "save this as `NAME`" becomes that file. Before a block, a comment may say:

    <!-- not run: why -->     the block is left out; `why` is one of REASONS
    <!-- keeps running -->    its command does not end: go on as soon as it has printed the lines below it

A block inside a comment is run and not shown. It may only prepare what the page says that its reader has ("You have …").
The ports 5000, 8080, 9000 and 9001 become free ones.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.free_ports import claim_free_port
from tests.leftovers import MARK
from tests.patience import patience
from tests.probes import is_ready

ROOT = Path(__file__).resolve().parents[2]
# Why a block may be left out. What can run here runs.
REASONS = (
    "it needs Google Cloud",
    "it needs root",
    "it needs Docker",
    "it needs Julia's own servers",
    "it takes long, and continuous integration runs it",
    "a test of its own runs it",
)
_FENCED = re.compile(
    r"(?:<!--\s*(not run|keeps running)(?:: ([^>]*?))?\s*-->\n+)?```(\w+)\n(.*?)^```",
    re.DOTALL | re.MULTILINE,
)
_SAVE_AS = re.compile(r"[Ss]ave this as `([^`]+)`[^`]*\Z")
_PORT = re.compile(r"(?<=[:=])(?:5000|8080|9000|9001)\b")
_GATEWAY = re.compile(r"http://127\.0\.0\.1:(\d+)/-/console/")
_END = "--end-of-command--"


class Command(NamedTuple):
    text: str
    expected: list[str]
    keeps_running: bool = False


class File(NamedTuple):
    """A file that the page tells its reader to save."""

    name: str
    text: str


def steps(page: Path) -> Iterator[Command | File]:
    """What a reader does, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    for block in _FENCED.finditer(text):
        mark, why, language, body = block.groups()
        if mark == "not run":
            assert why.startswith(REASONS), (
                f"{page}: {why!r} is no reason to leave a block out; REASONS has those there are"
            )
        elif language == "console":
            yield from _typed(page, body, keeps_running=mark == "keeps running")
        elif named := _SAVE_AS.search(text, 0, block.start()):
            yield File(named[1], body)


def _typed(page: Path, block: str, *, keeps_running: bool) -> Iterator[Command]:
    current: Command | None = None
    for line in block.replace("\\\n", "\\\0").splitlines():
        if line.startswith("$ "):
            if current is not None:
                yield current
            current = Command(re.sub("\\\\\0\\s*", " ", line[2:]), [], keeps_running)
        elif line.strip():
            assert current is not None, f"{page}: output without a command"
            current.expected.append(line)
    if current is not None:
        yield current


def commands(page: Path) -> list[Command]:
    return [step for step in steps(page) if isinstance(step, Command)]


# A gateway shows requests a moment after their answers, and takes up a change a moment after it was written; no reader types
# as fast as a test.
_LOOKS_BACK = ("chips tail", "chips why", "chips top", "curl ")


class Reader:
    """A person at a shell, with `chips`, `python` and the backends' languages installed, in an empty folder or a checkout."""

    def __init__(self, folder: Path, *, within: Path | None = None, port: int | None = None) -> None:
        self.folder = folder
        self._ports = {name: str(claim_free_port()) for name in ("5000", "8080", "9000", "9001")}
        if port is not None:
            self._ports["8080"] = str(port)
        home = folder / "home"
        home.mkdir(parents=True)
        (home / ".curlrc").write_text(
            "silent\nshow-error\n"
        )  # as on a terminal, where curl draws no progress
        work = within or folder / "work"
        work.mkdir(exist_ok=True)
        kept = {
            name: os.environ[name]
            for name in ("LANG", "JULIA", "JULIA_DEPOT_PATH", "GENIE_MANIFEST", MARK)
            if name in os.environ
        }
        environ = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "CHIPS_SERVER__PORT": self._ports["8080"],
            "CHIPS_SERVER__HOST": "127.0.0.1",
            "NO_COLOR": "1",
            "COLUMNS": "160",
        }
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=work,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def do(self, step: Command | File) -> str:
        """Take one step; return what it printed. Raises AssertionError where that is not what the page says."""
        if isinstance(step, File):
            text = _PORT.sub(lambda found: self._ports[found[0]], step.text)
            return self._type(f"cat >{shlex.quote(step.name)} <<'{_END}'\n{text}{_END}")[0]
        return self.run(step)

    @property
    def port(self) -> int:
        """Where the gateway is that the page calls 8080."""
        return int(self._ports["8080"])

    def run(self, command: Command) -> str:
        text = _PORT.sub(lambda found: self._ports[found[0]], command.text)
        if command.keeps_running:
            return self._leave_running(command, text)
        in_background = text.endswith(" &")
        if in_background:
            text = text.removesuffix(" &") + f" >{self.folder}/background.log 2>&1 &"
        give_up_at = time.monotonic() + (patience(10) if text.startswith(_LOOKS_BACK) else 0)
        while True:
            output, code = self._type(text)
            shown = self._as_written(output)
            missing = [line for line in command.expected if not _is_in(line, shown)]
            if (code == 0 and not missing) or time.monotonic() >= give_up_at:
                break
        assert code == 0, f"$ {command.text}\n{output}"
        if in_background and "serve" in text:
            self._wait_for_the_gateway()
        assert not missing, f"$ {command.text}\nno {missing[0]!r} in:\n{shown}"
        return shown

    def _leave_running(self, command: Command, text: str) -> str:
        log = self.folder / "running.log"
        self._type(f"PYTHONUNBUFFERED=1 {text} >{log} 2>&1 &")
        give_up_at = time.monotonic() + patience(90)
        output = ""
        while time.monotonic() < give_up_at:
            output = log.read_text() if log.exists() else ""
            if (told := _GATEWAY.search(output)) is not None:
                self._ports["8080"] = told[1]  # another one, where that was taken
            output = self._as_written(output)
            if all(_is_in(line, output) for line in command.expected):
                return output
            if self._type("kill -0 $!")[1] != 0:
                break
            time.sleep(0.1)
        raise AssertionError(f"$ {command.text}\nnot all of {command.expected} in:\n{output}")

    def _as_written(self, output: str) -> str:
        for written, used in self._ports.items():
            output = output.replace(f":{used}", f":{written}")
        return output

    def _type(self, text: str) -> tuple[str, int]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        # Programs must not read what is typed next, nor make the shell's own pipe one that does not wait.
        self._shell.stdin.write(f"{{ {text}\n}} </dev/null\n_code=$?; echo; echo {_END} $_code\n")
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
            if is_ready(f"http://127.0.0.1:{self._ports['8080']}/-/ready"):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "background.log").read_text())

    def close(self) -> None:
        """End what the page started: models that were deployed here, the gateway, the shell."""
        self._type(
            'for note in ~/.local/state/chips/local/*/*/*.json; do [ -e "$note" ] && '
            'chips undeploy "$(basename "$(dirname "$(dirname "$note")")")" --version "$(basename "$(dirname "$note")")" --target local --force; done'
        )
        self._type("kill $(jobs -p) 2>/dev/null; wait")
        os.killpg(self._shell.pid, signal.SIGTERM)
        try:
            self._shell.communicate(timeout=patience(15))
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.communicate()


def _is_in(line: str, output: str) -> bool:
    parts = re.split(r"\s*…\s*", re.sub(r"\s+", " ", line.strip()))
    return re.search(".*".join(map(re.escape, parts)), re.sub(r"[ \t]+", " ", output)) is not None
