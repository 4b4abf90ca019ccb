"""The pages that begin with the demo, run as they are written: what a reader types works, and prints what the page says."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.docs.page import ROOT, Command, File, Reader, commands, steps
from tests.docs.pages import PAGES, checkout, names

pytestmark = pytest.mark.timeout(300)

# The page of clients has them in several languages; each is run where its program is installed.
CLIENTS = {
    "Rscript": ("httr2", "R's httr2 is not installed (apt install r-cran-httr2)", ["-e", "library(httr2)"]),
    "node": ("node", "node is not installed (apt install nodejs)", ["-e", "fetch"]),
    "julia": ("julia", "Julia is not installed, or JULIA does not name it", ["-e", "using Downloads"]),
}
CALLING = "docs/how-to/call-a-model.md"
_PREPARED = re.compile(r"<!--[^>]*?```console", re.DOTALL)


class Demo:
    """`make demo`, which keeps running in a checkout, for all pages that begin with it."""

    def __init__(self, folder: Path) -> None:
        self.checkout = checkout(folder / "checkout")
        (self.start,) = [step for step in commands(ROOT / "README.md") if step.text == "make demo"]
        self.reader = Reader(folder / "demo", within=self.checkout)

    def score(self) -> None:
        """As the demo does at its end: for the next page, the last request is none of the page before."""
        self.reader.run(Command(". .demo/env", []))
        (score,) = [
            step for step in commands(ROOT / CALLING) if step.text.startswith("curl") and "-d" in step.text
        ][:1]
        self.reader.run(score)
        self.reader.run(
            Command("until chips why --last | grep -q '^POST /wine  200'; do sleep 0.2; done", [])
        )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("shared"))
    try:
        running.reader.run(running.start)
        yield running
    finally:
        running.reader.close()


@pytest.fixture(autouse=True)
def curl() -> None:
    require(
        "curl", available=shutil.which("curl") is not None, why="curl is not installed (apt install curl)"
    )


@pytest.mark.one_day  # the page of cost
@pytest.mark.parametrize("name", names(with_demo=True))
def test_a_page_does_what_it_says(name: str, tmp_path: Path, demo: Demo):
    if any(step.text == "make demo" for step in commands(ROOT / name)):
        demo.score()
    reader = Reader(tmp_path, within=demo.checkout, port=demo.reader.port)
    try:
        for step in steps(ROOT / name):
            program = "" if isinstance(step, File) else step.text.split()[0]
            if program != "make" and (name != CALLING or program not in CLIENTS):  # `make demo` runs already
                reader.do(step)
    finally:
        reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("program", CLIENTS)
def test_a_client_in_each_language(program: str, tmp_path: Path, request: pytest.FixtureRequest):
    needs, why, tried = CLIENTS[program]
    path = os.environ.get("JULIA", "julia") if program == "julia" else program
    require(needs, available=_runs([path, *tried]), why=why)
    demo: Demo = request.getfixturevalue("demo")
    reader = Reader(tmp_path, within=demo.checkout, port=demo.reader.port)
    try:
        reader.do(Command(f'{program}() {{ command {path} "$@"; }}', []))
        taken = list(steps(ROOT / CALLING))
        (run,) = [step for step in taken if isinstance(step, Command) and step.text.split()[0] == program]
        reader.do(Command(". .demo/env", []))
        for step in taken:
            if isinstance(step, File) and step.name in run.text:
                reader.do(step)
        reader.do(run)
    finally:
        reader.close()


def _runs(command: list[str]) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def test_commands_are_in_console_blocks_which_are_run():
    """A block of another language would not be."""
    others = [
        f"{page.relative_to(ROOT)}: {block}"
        for page in PAGES
        for block in re.findall(r"^```(?:sh|bash|shell|zsh)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert not others


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_prepared_unseen_is_what_the_page_says_its_reader_has(page: Path):
    text = page.read_text(encoding="utf-8")
    list(steps(page))  # each reason for leaving a block out is one of those there are
    for prepared in _PREPARED.finditer(text):
        before = text[: prepared.start()].rstrip().rpartition("\n\n")[2]
        assert before.startswith("You have "), (
            f"the paragraph before the comment does not say what is prepared:\n{prepared[0]}"
        )


def test_links_between_pages_lead_somewhere():
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken, os.linesep.join(broken)
