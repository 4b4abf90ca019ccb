"""One format, four readers: each takes and refuses the same manifests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from chips_backend.manifest import parse_manifest as parse_in_python

from gateway.artifacts.manifest import parse_manifest as parse_in_gateway
from tests.contract.backends.languages import Julia, run_r
from tests.contract.manifest_cases import load_cases

CASES = load_cases()

IN_R = """
for (path in sort(Sys.glob(file.path(commandArgs(TRUE)[[1]], "*.json")))) {
  bytes <- readBin(path, "raw", file.size(path))
  said <- tryCatch({ parse_manifest(bytes); "" }, error = function(e) paste0("refused: ", conditionMessage(e)))
  cat(json_ascii(json_string(said)), "\\n", sep = "")
}
"""
IN_JULIA = """
include("src/Backend.jl")
for path in sort(readdir(ARGS[1]; join = true))
    said = try
        Backend.parse_manifest(read(path))
        ""
    catch error
        error isa Backend.ManifestError || rethrow()
        "refused: " * error.message
    end
    println(String(Backend.encode(said)))
end
"""


def expect(verdict: Callable[[int], str]) -> None:
    """`verdict` of each case by its number: empty where it is taken, else the reason."""
    wrong = []
    for number, case in enumerate(CASES):
        said = verdict(number)
        if bool(said) is case.valid:
            wrong.append(f"{case.name}: {said or 'taken'}")
        elif said:
            assert "manifest.json" in said, (case.name, said)
            assert said.isprintable(), (case.name, said)
    assert not wrong, "\n".join(wrong)


def said_by(parse: Callable[[bytes], object], content: bytes) -> str:
    try:
        parse(content)
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests")
    for number, case in enumerate(CASES):
        (folder / f"{number:04d}.json").write_bytes(case.content)
    return folder


def test_in_the_gateway():
    expect(lambda number: said_by(parse_in_gateway, CASES[number].content))


def test_in_python():
    expect(lambda number: said_by(parse_in_python, CASES[number].content))


def test_in_r(has_r: None, written: Path):
    said = [json.loads(line) for line in run_r(IN_R, str(written)).splitlines()]
    assert len(said) == len(CASES)
    expect(lambda number: said[number])


def test_in_julia(julia: Julia, written: Path):
    said = [json.loads(line) for line in julia.run("-e", IN_JULIA, str(written)).splitlines()]
    assert len(said) == len(CASES)
    expect(lambda number: said[number])
