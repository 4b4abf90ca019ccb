"""The log where it cannot be written: full disks, paused and closed readers, rotated files. Real files and pipes."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from gateway.telemetry.logs import LogWriter
from tests.conftest import require
from tests.patience import patience

ROOT = Path(__file__).parents[3]


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + patience(60)
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What is told on standard error instead."""
    caught: list[Exception] = []
    monkeypatch.setattr("gateway.telemetry.logs._complain", caught.append)
    return caught


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.thread_and_task_supervisor._FIRST_DELAY_S", 0.001)
    monkeypatch.setattr("gateway.thread_and_task_supervisor._LONGEST_DELAY_S", 0.02)


@contextlib.contextmanager
def writing_to(stream: TextIO, **options: Any) -> Iterator[LogWriter]:
    writer = LogWriter(stream, interval_s=0.001, **options)
    writer.start()
    yield writer
    writer.stop(timeout_s=0.2 if options.get("stuck", False) else patience(5))
    assert not writer._thread.is_alive() or options.get("stuck", False)


class Failing(io.RawIOBase):
    """A stream that fails as long as `error` says so, and then takes a few bytes at a time."""

    def __init__(self) -> None:
        self.error: int | None = None
        self.cut = 0  # bytes that are taken before the next failure
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if self.error is not None and not self.cut:
            if self.error == errno.EAGAIN:
                return None
            raise OSError(self.error, os.strerror(self.error))
        taken = bytes(data)[: self.cut or 7]
        self.cut = 0
        self.content += taken
        return len(taken)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EAGAIN, errno.EIO, errno.EINTR, errno.EDQUOT])
def test_an_error_that_passes_costs_no_line(error: int, complaints: list[Exception]):
    """Not the one that was cut off in its middle either."""
    raw = Failing()
    with writing_to(io.TextIOWrapper(io.BufferedWriter(raw))) as writer:
        writer.write(b"one")
        until(lambda: raw.content == b"one\n")
        raw.error, raw.cut = error, 5
        for number in range(20):
            writer.write(b"waits %d" % number)
        until(lambda: len(raw.content) == 9)
        helper = writer.supervisor.helper("log")
        if error != errno.EAGAIN:  # which is no failure: the reader takes its time
            until(lambda: helper.failing > 2)
            assert len(complaints) == 1
        raw.error = None
        until(lambda: raw.content.count(b"\n") == 21)
        until(lambda: not helper.failing)
        writer.write(b"last")
        until(lambda: raw.content.endswith(b"last\n"))
    assert raw.content.splitlines() == [b"one", *(b"waits %d" % number for number in range(20)), b"last"]
    assert writer.dropped == 0


def test_what_is_beyond_the_bound_is_counted_and_told(complaints: list[Exception]):
    raw = Failing()
    raw.error = errno.ENOSPC
    with writing_to(io.TextIOWrapper(io.BufferedWriter(raw)), limit_lines=10) as writer:
        writer.write(b"at hand")
        until(lambda: writer.supervisor.helper("log").failing > 0)
        for number in range(25):
            writer.write(b"%d" % number)
        assert writer.dropped == 15
        raw.error = None
        until(lambda: b"15 log lines were dropped" in raw.content)
    assert raw.content.splitlines()[:11] == [b"at hand", *(b"%d" % number for number in range(10))]
    assert writer.dropped == 15


def test_a_paused_pipe_costs_what_is_beyond_the_bound_and_nothing_else():
    reading, paused = os.pipe()
    os.set_blocking(paused, False)
    with os.fdopen(paused, "w") as stream, writing_to(stream, limit_lines=1000) as writer:
        lines = 0
        while not writer.dropped:
            writer.write(b"%06d" % lines + b"x" * 500)
            lines += 1
        os.set_blocking(reading, False)
        got = b""

        def all_arrived() -> bool:
            nonlocal got
            with contextlib.suppress(BlockingIOError):
                got += os.read(reading, 1 << 20)
            return got.count(b"\n") == lines - writer.dropped + 1

        until(all_arrived)
    os.close(reading)
    numbers = [int(line[:6]) for line in got.splitlines() if not line.startswith(b"{")]
    assert len(numbers) == lines - writer.dropped
    assert numbers == sorted(set(numbers)), "each once, in their order"
    assert json.loads(got.splitlines()[-1])["message"] == f"{writer.dropped} log lines were dropped"


def test_what_a_closed_pipe_cost_is_counted(complaints: list[Exception]):
    reading, closed = os.pipe()
    with os.fdopen(closed, "w") as stream, writing_to(stream) as writer:
        writer.write(b"read")
        assert os.read(reading, 100) == b"read\n"
        os.close(reading)
        for number in range(50):
            writer.write(b"%d" % number)
        until(lambda: writer.dropped == 50)
        assert writer._thread.is_alive()
        until(lambda: writer.supervisor.helper("log").restarts > 0)
        tries = writer.supervisor.helper("log").restarts
        writer.write(b"the last one")
        until(lambda: writer.dropped == 51)
        until(lambda: writer.supervisor.helper("log").restarts > tries + 3)
        assert writer.dropped == 51, "a report of dropped lines that is dropped itself is no lost line"


def test_a_closed_stream_is_no_end_either(complaints: list[Exception]):
    stream = io.TextIOWrapper(io.BytesIO())
    with writing_to(stream) as writer:
        stream.close()
        writer.write(b"lost")
        until(lambda: writer.dropped == 1)


def test_a_file_that_is_moved_away_gets_all_lines(tmp_path: Path):
    with (tmp_path / "log").open("w") as stream, writing_to(stream) as writer:
        writer.write(b"before")
        until(lambda: (tmp_path / "log").read_bytes() == b"before\n")
        (tmp_path / "log").rename(tmp_path / "log.1")
        writer.write(b"after")
        until(lambda: (tmp_path / "log.1").read_bytes() == b"before\nafter\n")
    assert writer.dropped == 0


def test_a_file_that_is_cut_off_gets_no_hole(tmp_path: Path):
    """logrotate's copytruncate, with a shell's `>`."""
    path = tmp_path / "log"
    with path.open("w") as stream, writing_to(stream) as writer:
        writer.write(b"before")
        until(lambda: path.read_bytes() == b"before\n")
        os.truncate(path, 0)
        writer.write(b"after")
        until(lambda: path.read_bytes() == b"after\n")
    assert writer.dropped == 0


def test_lines_stay_whole_between_workers_also_where_one_was_cut_off(
    tmp_path: Path, complaints: list[Exception]
):
    raw = Failing()
    with writing_to(io.TextIOWrapper(io.BufferedWriter(raw)), lock=tmp_path / "lock") as writer:
        raw.error, raw.cut = errno.ENOSPC, 3
        writer.write(b"first line")
        until(lambda: writer.supervisor.helper("log").failing > 0)
        raw.content += b"of another worker\n" if raw.content.endswith(b"\n") else b"\nof another worker\n"
        raw.error = None
        until(lambda: b"first line\n" in raw.content)
    assert b"first line" in raw.content.splitlines()


def test_a_stop_counts_what_is_left(complaints: list[Exception]):
    raw = Failing()
    raw.error = errno.ENOSPC
    with writing_to(io.TextIOWrapper(io.BufferedWriter(raw))) as writer:
        writer.write(b"at hand")
        until(lambda: writer.supervisor.helper("log").failing > 0)
        for _ in range(7):
            writer.write(b"waits")
    assert writer.dropped == 8


FULL = """
import resource, signal, sys, time
from pathlib import Path
from gateway.telemetry.logs import LogWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
writer = LogWriter(sys.stdout, interval_s=0.001)
writer.start()
for number in range(100):
    writer.write(b"%03d " % number + b"x" * 95)
helper = writer.supervisor.helper("log")
while not helper.failing:
    time.sleep(0.001)
assert Path(sys.argv[1]).stat().st_size == 4000, "the file is full, in the middle of a line or not"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
while helper.failing or writer._lines:
    time.sleep(0.001)
writer.stop(600)
sys.exit(writer.dropped)
"""


def test_a_file_that_is_full_for_a_while_ends_up_whole(tmp_path: Path):
    path = tmp_path / "log"
    with path.open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(path)], stdout=log, stderr=subprocess.PIPE, cwd=ROOT, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"the log cannot be written") == 1
    lines = path.read_bytes().splitlines()
    assert [line[:3] for line in lines if line[4:5] == b"x"] == [b"%03d" % number for number in range(100)]


def test_a_disk_that_is_full_for_a_while(tmp_path: Path, complaints: list[Exception]):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    require("tmpfs", available=mounted.returncode == 0, why="no file system can be mounted here")
    try:
        filler = tmp_path / "filler"
        with (tmp_path / "log").open("w") as stream, writing_to(stream) as writer:
            with filler.open("wb", buffering=0) as rest, contextlib.suppress(OSError):
                while True:
                    rest.write(b"x" * 4096)
            for number in range(1000):
                writer.write(b"%04d" % number + b"x" * 20)
            until(lambda: writer.supervisor.helper("log").failing > 0)
            filler.unlink()
            until(lambda: (tmp_path / "log").read_bytes().count(b"\n") >= 1000)
            lines = (tmp_path / "log").read_bytes().splitlines()
        assert [int(line[:4]) for line in lines[:1000]] == list(range(1000))
        assert writer.dropped == 0
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], capture_output=True, check=False)
