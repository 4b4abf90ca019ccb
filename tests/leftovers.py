"""A test ends what it starts. What it leaves behind fails it, and not the later test in which the collector finds it.

Processes, sockets, connections to SQLite and threads are noted as they are made, and looked at when the test and its own
fixtures have ended. What a fixture of a wider scope makes is its own to end, as is what its threads make afterwards.
Where the whole run is killed, tests/reaper.py ends what it started.
"""

import contextlib
import gc
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Generator
from functools import wraps
from pathlib import Path
from typing import Any, Final

import pytest

from tests.patience import patience

_THREAD_ENDS_WITHIN_S: Final = 10.0
_OWNER: Final = "_chips_belongs_to_a_wider_fixture"
# Everything that is started has it in its environment; tests/reaper.py.
MARK: Final = "TEST_RUN_OF_CHIPS"
_FAILED: Final = pytest.StashKey[bool]()
_REAPER: Final = pytest.StashKey["subprocess.Popen[bytes]"]()


class Leftovers:
    """What was made since the last `begin`, for as long as somebody holds it."""

    def __init__(self) -> None:
        self._in_a_test = False
        self._wider_fixtures = 0
        self._made: list[weakref.ref[Any]] = []
        self.lost: list[str] = []  # it was collected before it was closed

    def note(self, made: Any) -> None:
        if self._in_a_test and not self.is_wider() and not _is_made_by_grpc():
            self._made.append(weakref.ref(made))

    def is_wider(self) -> bool:
        """Whether a fixture that outlives the test is at work in this thread."""
        thread = threading.current_thread()
        if thread is threading.main_thread():
            return self._wider_fixtures > 0
        return bool(getattr(thread, _OWNER, False))

    @contextlib.contextmanager
    def wider_fixture(self) -> Generator[None]:
        self._wider_fixtures += 1
        try:
            yield
        finally:
            self._wider_fixtures -= 1

    def begin(self) -> None:
        self._made.clear()
        self.lost.clear()
        self._in_a_test = True

    def end(self) -> list[str]:
        """End what is left; one line for each."""
        self._in_a_test = False
        warned = _collect() if any(_may_be_in_a_circle(reference()) for reference in self._made) else []
        left = [line for reference in self._made if (line := _end(reference())) is not None]
        self._made.clear()
        return [*left, *self.lost, *warned]


def _is_made_by_grpc() -> bool:
    """The first use of grpc.aio makes a thread and two sockets, which serve the process to its end."""
    frame = sys._getframe(2)
    for _ in range(6):
        if str(frame.f_globals.get("__name__")).startswith("grpc."):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def _may_be_in_a_circle(made: Any) -> bool:
    """An HTTP client that was closed may still hold open connections, and an exception the pool whose threads end with it."""
    if isinstance(made, socket.socket):
        return made.fileno() != -1
    return isinstance(made, threading.Thread) and made.is_alive()


def _collect() -> list[str]:
    """What the collector warns of. What only a circle holds is closed silently, where it closes itself."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        gc.collect()
    return [str(one.message) for one in warned if issubclass(one.category, ResourceWarning)]


def _end(made: Any) -> str | None:
    match made:
        case subprocess.Popen():
            return _end_process(made)
        case threading.Thread():
            return _end_thread(made)
        case socket.socket():
            return _end_socket(made)
        case sqlite3.Connection():
            return _end_connection(made)
    return None


def _end_socket(left: Any) -> str | None:
    if left.fileno() == -1:
        return None
    line = f"a socket: {left!r}"
    # It stays open below for as long as an answer that was read from it is held, often by the frames of an exception.
    was_closed = left._closed
    left._real_close()
    return None if was_closed else line


def _end_process(process: "subprocess.Popen[Any]") -> str | None:
    pipes = [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]
    is_left, has_pipes = process.returncode is None, any(not pipe.closed for pipe in pipes)
    if not is_left and not has_pipes:
        return None
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            kill = os.killpg if os.getpgid(process.pid) == process.pid else os.kill
            kill(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in pipes:
        with contextlib.suppress(OSError):  # what could not be written to it
            pipe.close()
    words = [process.args] if isinstance(process.args, str | bytes) else list(process.args)  # type: ignore[arg-type]
    command = shlex.join(str(word) for word in words)
    return f"{'a process that nobody waited for' if is_left else 'the pipes of a process'}: {command[:500]}"


def _end_thread(thread: threading.Thread) -> str | None:
    if thread.ident is None or thread is threading.current_thread():
        return None
    thread.join(patience(_THREAD_ENDS_WITHIN_S))  # it may be about to end
    return f"a thread: {thread!r}" if thread.is_alive() else None


def _end_connection(connection: sqlite3.Connection) -> str | None:
    try:
        connection.in_transaction  # noqa: B018  (raises where it is closed, or could not be opened)
    except sqlite3.ProgrammingError:
        return None
    try:
        files = [row[2] for row in connection.execute("PRAGMA database_list")]
        connection.close()
    except sqlite3.Error as error:  # it belongs to another thread, or the file is no database
        return f"a connection to SQLite: {error}"
    return f"a connection to SQLite: {', '.join(files)}"


_leftovers: Final = Leftovers()


def _note_what_it_makes(kind: type) -> None:
    init: Callable[..., None] = kind.__init__  # type: ignore[misc]

    @wraps(init)
    def noting(self: Any, *positional: Any, **named: Any) -> None:
        init(self, *positional, **named)
        _leftovers.note(self)

    kind.__init__ = noting  # type: ignore[misc]


def _note_threads() -> None:
    start = threading.Thread.start

    @wraps(start)
    def noting(self: threading.Thread) -> None:
        setattr(self, _OWNER, _leftovers.is_wider())
        start(self)
        _leftovers.note(self)

    threading.Thread.start = noting  # type: ignore[method-assign]


class _Connection(sqlite3.Connection):
    """Can be referred to weakly, which sqlite3's own type cannot, and is missed where nobody closes it, as by Python 3.13."""

    def __del__(self) -> None:
        line = _end_connection(self)
        if line is not None:
            _leftovers.lost.append(line)


def _note_connections() -> None:
    connect = sqlite3.connect

    @wraps(connect)
    def noting(*positional: Any, **named: Any) -> sqlite3.Connection:
        if len(positional) < 6:
            named.setdefault("factory", _Connection)
        made: sqlite3.Connection = connect(*positional, **named)
        if isinstance(made, _Connection):
            _leftovers.note(made)
        return made

    sqlite3.connect = sqlite3.dbapi2.connect = noting  # type: ignore[assignment]


_note_what_it_makes(subprocess.Popen)
_note_what_it_makes(socket.socket)
_note_threads()
_note_connections()


def pytest_configure(config: pytest.Config) -> None:
    mark = f"{MARK}={os.getpid()}.{os.urandom(8).hex()}"
    reaper = [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py")), mark]
    config.stash[_REAPER] = subprocess.Popen(reaper, stdin=subprocess.PIPE, env={}, start_new_session=True)
    os.environ[MARK] = mark.partition("=")[2]


def pytest_unconfigure(config: pytest.Config) -> None:
    os.environ.pop(MARK, None)
    reaper = config.stash.get(_REAPER, None)
    if reaper is not None:
        reaper.communicate()


def _forget_failure() -> None:
    """A traceback holds all that its frames do: files, sessions, coroutines. They end now, and not in another test."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    _collect()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    if fixturedef.scope == "function":
        return (yield)
    with _leftovers.wider_fixture():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    _leftovers.begin()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
    finally:
        left = _leftovers.end()
        if item.stash.get(_FAILED, False):
            _forget_failure()
    if left:
        pytest.fail("the test has left behind\n" + "\n".join(left), pytrace=False)
