"""Show the progress of an upload or download."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.cli.support import console


@contextmanager
def transfer_progress(description: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show the progress of a transfer: a bar on a terminal, a line for each tenth elsewhere.

    Yields the function that takes the number of bytes of each part. Shows nothing where not `shown`; lines only for 1 MiB or more.
    """
    if not shown:
        yield lambda _: None
    elif console.err.is_terminal:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        with Progress(
            description,
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console.err,
        ) as bar:
            task = bar.add_task(description, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _Tenths(description, total)


class _Tenths:
    def __init__(self, word: str, total: int) -> None:
        self._word = word
        self._total = max(total, 1)
        self._done = 0

    def __call__(self, count: int) -> None:
        before = self._done * 10 // self._total
        self._done += count
        tenth = self._done * 10 // self._total
        if tenth > before and self._total >= 1 << 20:
            console.note(f"{self._word} {tenth * 10} % of {self._total} bytes")
