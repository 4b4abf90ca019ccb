"""The main function of the process that compares answers.

It reads pairs of answers from standard input, and writes findings to standard output. It is a process of its own so that no
comparison takes the time of a gateway's event loop. It has no network, no registry and no settings. Each frame is its
length in four bytes (big-endian), and MessagePack.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from gateway.shadow.compare_answers import compare_answers
from gateway.shadow.decode_answer import Answer
from gateway.shadow.difference_counts import DifferenceExample, Findings

COMMAND: Final = (sys.executable, "-m", "gateway.shadow.comparer_main")
LENGTH_BYTES: Final = 4
_NICENESS: Final = 10  # callers come first where processors are short
_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")  # of Linux


class AnswerPair(msgspec.Struct, frozen=True, tag="pair", array_like=True):
    """The answers to one request that are compared.

    They are the stable version's, the candidate's, and sometimes the stable version's second one.
    """

    shadow: str
    request_id: str
    stable: Answer
    candidate: Answer
    again: Answer | None
    tolerance: float
    tolerances: dict[str, float]


class FindingsQuery(msgspec.Struct, frozen=True, tag="ask", array_like=True):
    """A query for the findings of one shadow. It asks for those since the start."""

    shadow: str


class ForgetShadow(msgspec.Struct, frozen=True, tag="forget", array_like=True):
    """A message to forget the findings of a shadow. The shadow has ended."""

    shadow: str


encode = msgspec.msgpack.Encoder().encode
decode_findings = msgspec.msgpack.Decoder(Findings).decode
_decode = msgspec.msgpack.Decoder(AnswerPair | FindingsQuery | ForgetShadow).decode


def encode_frame(message: msgspec.Struct) -> bytes:
    """Encode a message as a frame. A frame is its length, then its MessagePack."""
    content = encode(message)
    return len(content).to_bytes(LENGTH_BYTES) + content


def compare_pair(pair: AnswerPair, findings: Findings) -> None:
    """Compare a pair of answers, and add the result to `findings`."""
    findings.candidate.count(pair.candidate)
    findings.stable.count(pair.stable)
    if pair.again is not None and not _failed(pair.again) and not _failed(pair.stable):
        findings.noise.count(compare_answers(pair.stable, pair.again, pair.tolerance, pair.tolerances))
    if _failed(pair.candidate) or _failed(pair.stable):
        return  # counted as a failure; no answer to compare
    comparison = compare_answers(pair.stable, pair.candidate, pair.tolerance, pair.tolerances)
    findings.pairs.count(comparison)
    if not comparison.agrees:
        only_numbers = all(one.amount is not None for one in comparison.differences)
        amount = comparison.largest_difference if only_numbers else None
        findings.keep_worst([DifferenceExample(pair.request_id, comparison.differences, amount)])


def _failed(answer: Answer) -> bool:
    return bool(answer.failure) or answer.status >= 500


def run(source: BinaryIO, sink: BinaryIO) -> None:
    """Compare the pairs that `source` sends, and answer queries.

    It reads frames until `source` ends, and writes answers to `sink`.
    """
    found: dict[str, Findings] = {}
    while len(length := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        message = _decode(source.read(int.from_bytes(length)))
        if isinstance(message, AnswerPair):
            compare_pair(message, found.setdefault(message.shadow, Findings()))
        elif isinstance(message, FindingsQuery):
            sink.write(encode_frame(found.get(message.shadow, Findings())))
            sink.flush()
        else:
            found.pop(message.shadow, None)


def main() -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal's Ctrl-C is for the gateway, which then closes the pipe
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(
        OSError
    ):  # where memory is short, an answer that swells must not cost the gateway
        _OOM_SCORE.write_text("1000")
    with contextlib.suppress(BrokenPipeError):
        run(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
