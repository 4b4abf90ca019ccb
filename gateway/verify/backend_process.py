"""A backend process that the conformance checks start. They check how it starts, logs and stops."""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path


class BackendProcess:
    """A backend process: `command` run with `environment`. `lines` collects its standard output, `errors` its standard error."""

    def __init__(self, command: str, environment: Mapping[str, str], folder: Path | None = None) -> None:
        self._arguments = shlex.split(command)
        self._environment = dict(environment)
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._read = asyncio.Condition()
        self.lines: list[str] = []
        self.errors: list[str] = []

    async def spawn(self) -> None:
        """Start the process, without waiting until it is ready. Raises OSError where the program cannot be started."""
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            env=self._environment,
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        self._readers = [
            asyncio.create_task(self._collect(self._process.stdout, self.lines), name="standard output"),
            asyncio.create_task(self._collect(self._process.stderr, self.errors), name="standard error"),
        ]

    async def _collect(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            async with self._read:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._read.notify_all()

    @property
    def environment(self) -> dict[str, str]:
        return dict(self._environment)

    @property
    def command(self) -> str:
        return shlex.join(self._arguments)

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    async def wait_for_line(self, text: str, *, timeout_s: float) -> str | None:
        """Wait for the first line of standard output that contains `text`. None where none comes within `timeout_s`."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._read:
                await self._read.wait_for(lambda: found() is not None)
        return found()

    def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    def terminate_wrapped_process(self) -> None:
        """Send SIGTERM to the program that the process wraps: its only child. The process is a wrapper such as `unshare`."""
        if self._process is not None and self._process.returncode is None:
            pid = self._process.pid
            with contextlib.suppress(
                FileNotFoundError, ProcessLookupError
            ):  # it, or the child, has just ended
                for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                    os.kill(int(child), signal.SIGTERM)

    async def wait_for_exit(self, *, timeout_s: float) -> int | None:
        """Wait for the process to end, and return its exit code. None where it has not ended within `timeout_s`."""
        if self._process is None:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                code = await self._process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            return self._process.returncode
        return code

    async def stop(self) -> None:
        """Stop the process. Everything that it started is stopped, too."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        for reader in self._readers:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
