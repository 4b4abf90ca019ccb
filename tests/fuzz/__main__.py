"""Fuzz the two protocol adapters for as long as you like: `python -m tests.fuzz caller|backend|chunks [libFuzzer's options]`.

Needs atheris (`pip install atheris`), which CI does without: tests/unit has the same oracles with Hypothesis.
"""

import asyncio
import sys

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports():
    from gateway.core.chunks import Dechunker
    from tests.fuzz.harness import Backends, Callers, answers_in

_loop = asyncio.new_event_loop()


def caller(data: bytes) -> None:
    callers = Callers(_loop)
    callers.feed(data[1:], (data[0] if data else 0) + 1)
    answers = answers_in(callers.wire.written)
    assert len(answers) <= len(callers.seen) + 1
    callers.leave()


def backend(data: bytes) -> None:
    backends = Backends()
    backends.feed(data[1:], (data[0] if data else 0) + 1)
    backends.check()
    backends.end()
    backends.check()


def chunks(data: bytes) -> None:
    try:
        Dechunker().feed(data)
    except ValueError:
        return


if __name__ == "__main__":
    target = {"caller": caller, "backend": backend, "chunks": chunks}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
