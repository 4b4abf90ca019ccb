"""Show the progress of an upload or download."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.cli.support import console


@contextmanager
def transfer_progress(done: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show the progress of a transfer.

    It is a bar on a terminal, a line for each tenth elsewhere, nothing where not `shown`.
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
            done,
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console.err,
        ) as bar:
            task = bar.add_task(done, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _Tenths(done, total)


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
