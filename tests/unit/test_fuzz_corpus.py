"""What fuzzing began with and what it found, played again: tests/fuzz/__main__.py says how more is found."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus(name: str):
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for file in inputs:
        try:
            TARGETS[name](file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{name} {file.name}") from error
