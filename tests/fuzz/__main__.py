"""Fuzz the two protocol adapters: `python -m tests.fuzz caller|backend|chunks [--minutes 5] [libFuzzer's options]`.

`make fuzz MINUTES=5` runs all three. Begins with tests/fuzz/corpus, and keeps what it learns in .fuzz. An input that the
oracle is not content with is written to .fuzz/crash-…: mend the fault, and put the input into the corpus, which
tests/unit/test_fuzz_corpus.py plays again at each run of the tests. Needs atheris (`pip install atheris`), which CI does
without: tests/unit has the same oracles with Hypothesis.
"""

import logging
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["gateway", "tests.fuzz"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
LEARNT = Path(".fuzz")


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in TARGETS:
        sys.exit(f"error: name a target: {', '.join(TARGETS)}\n\n{__doc__}")
    name = arguments.pop(0)
    if arguments[:1] == ["--minutes"]:
        arguments[:2] = [f"-max_total_time={float(arguments[1]) * 60:.0f}"]
    logging.disable()
    learnt = LEARNT / name
    learnt.mkdir(parents=True, exist_ok=True)
    options = ["-max_len=4096", f"-artifact_prefix={LEARNT}/", f"-dict={CORPUS / 'http.dict'}", *arguments]
    atheris.Setup([sys.argv[0], *options, str(learnt), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
