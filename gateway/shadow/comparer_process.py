"""Run the process that compares the answers of shadows.

It is sent pairs of answers, and asked for its findings. The gateway never waits for a comparison.
"""

import asyncio
import contextlib
import sys
from typing import Final

from gateway.shadow.comparer_main import (
    LENGTH_BYTES,
    AnswerPair,
    FindingsQuery,
    ForgetShadow,
    decode_findings,
    encode_frame,
)
from gateway.shadow.difference_counts import Findings

_ANSWER_S: Final = 10.0
# It starts first, with the least of all claims to a processor; begun again and again, it would never get there.
_FIRST_ANSWER_S: Final = 60.0
_END_S: Final = 2.0
_BACKLOG_BYTES: Final = 8 << 20  # that wait in the pipe: what comes then is dropped
# The same code and libraries as here, and nothing of the environment: there are secrets in it.
_PROGRAM: Final = "import sys; sys.path[:] = {path!r}; from gateway.shadow.comparer_main import main; main()"


class ComparerLost(Exception):
    """The comparer process has ended, or does not answer."""


class ComparerProcess:
    """The child process that compares answers. `start` it again where it was lost; what it had found is lost with it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._asked = False  # an answer is still to come, or was given up
        self._has_answered = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        return self._pipe() is not None

    async def start(self) -> None:
        """Start the process. Raises OSError where the system gives none."""
        self._asked = self._has_answered = False
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PROGRAM.format(path=sys.path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={},
        )

    def offer(self, pair: AnswerPair) -> bool:
        """Offer a pair of answers for comparison.

        Returns False if it is not taken. This does not wait. The process takes none while it is behind, or when it has ended.
        """
        pipe = self._pipe()
        if pipe is None or pipe.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            return False
        pipe.write(encode_frame(pair))
        return True

    def forget(self, shadow: str) -> None:
        pipe = self._pipe()
        if pipe is not None:
            pipe.write(encode_frame(ForgetShadow(shadow)))

    async def findings_since_start(self, shadow: str) -> Findings:
        """Ask for all findings about `shadow` since the process began. Raises ComparerLost where it has ended, or is silent."""
        pipe, process = self._pipe(), self._process
        if pipe is None or process is None or process.stdout is None:
            raise ComparerLost("the process that compares has ended")
        if self._asked:
            raise ComparerLost("the last answer of the process that compares was not read")
        self._asked = True
        pipe.write(encode_frame(FindingsQuery(shadow)))
        try:
            async with asyncio.timeout(_ANSWER_S if self._has_answered else _FIRST_ANSWER_S):
                length = await process.stdout.readexactly(LENGTH_BYTES)
                found = decode_findings(await process.stdout.readexactly(int.from_bytes(length)))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            raise ComparerLost("the process that compares does not answer") from error
        self._asked, self._has_answered = False, True
        return found

    async def stop(self) -> None:
        """End the process. May be cancelled, and called again."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._process = None

    def _pipe(self) -> asyncio.StreamWriter | None:
        process = self._process
        if (
            process is None
            or process.returncode is not None
            or process.stdin is None
            or process.stdin.is_closing()
        ):
            return None
        return process.stdin
