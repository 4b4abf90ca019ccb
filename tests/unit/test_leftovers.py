"""A test that leaves something behind fails itself; a run that is killed leaves nothing: runs of tests in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import patience
from tests.probes import runs, until

ROOT = Path(__file__).resolve().parents[2]
LEAVING = """
import asyncio, gc, socket, sqlite3, subprocess, sys, threading
import pytest

kept = []
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

def test_process():
    process = subprocess.Popen([*SLEEP, "left"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.itself = process

def test_pipes():
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.wait()
    process.itself = process

async def test_coroutine():
    kept.append(await asyncio.create_subprocess_exec(*SLEEP, "of asyncio"))

def test_process_of_a_test_that_fails():
    process = subprocess.Popen([*SLEEP, "failed"])
    raise ValueError(process)

def test_that_fails_with_a_file(tmp_path):
    session = open(tmp_path / "file", "w")
    circle = [session]
    circle.append(circle)
    raise ValueError(circle)

def test_collects():
    gc.collect()

def test_socket():
    kept.append(socket.create_server(("127.0.0.1", 0)))

def test_socket_in_a_circle():
    server = socket.create_server(("127.0.0.1", 0))
    circle = [server]
    circle.append(circle)

def test_connection(tmp_path):
    with sqlite3.connect(tmp_path / "some.db") as db:
        db.execute("CREATE TABLE t (a)")

def test_thread():
    thread = threading.Thread(target=kept.append, args=[None])
    thread.run = threading.Event().wait
    thread.daemon = True
    thread.start()
"""
CLEAN = """
import asyncio, concurrent.futures, socket, sqlite3, subprocess, sys, threading
from contextlib import closing
import pytest

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

@pytest.fixture(scope="module")
def of_the_module(tmp_path_factory):
    with subprocess.Popen(SLEEP) as process, socket.create_server(("127.0.0.1", 0)) as server:
        db = sqlite3.connect(tmp_path_factory.mktemp("db") / "some.db")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(str).result()
            connections = []
            yield lambda: pool.submit(lambda: connections.append(socket.create_connection(server.getsockname())))
            [one.close() for one in connections]
        db.close()
        process.kill()

@pytest.fixture
def of_the_test():
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()

def test_what_a_fixture_ends(of_the_module, of_the_test):
    assert of_the_test.poll() is None
    of_the_module().result(60)  # made by a thread of the module's

def test_what_the_module_still_uses(of_the_module): ...

def test_what_was_closed(tmp_path):
    with closing(sqlite3.connect(tmp_path / "some.db")) as db, db:
        db.execute("CREATE TABLE t (a)")
    subprocess.run([sys.executable, "-c", ""], capture_output=True)
    a, b = socket.socketpair()
    a.close()
    b.close()
    threading.Thread(target=str).start()

async def test_what_asyncio_ends():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdout=subprocess.PIPE)
    await process.communicate()
"""
KILLED = """
import pathlib, subprocess, sys, time

def test_is_killed(tmp_path):
    code = "import time; time.sleep(600)"
    start = [sys.executable, "-c", f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {code!r}], start_new_session=True, stdout=subprocess.DEVNULL).pid)"]
    pid = subprocess.run(start, stdout=subprocess.PIPE, text=True).stdout
    pathlib.Path("started").write_text(f"{pid.strip()}\\n")
    time.sleep(600)
"""


def arguments(folder: Path, code: str) -> dict[str, object]:
    (folder / "test_them.py").write_text(code)
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    options = (
        "-q",
        "-p",
        "tests.leftovers",
        "-p",
        "no:cacheprovider",
        "-rA",
        "--tb=short",
        "-p",
        "no:randomly",
    )
    return {
        "args": [sys.executable, "-m", "pytest", *options, str(folder)],
        "cwd": folder,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
    }


def run(folder: Path, code: str) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        **arguments(folder, code), capture_output=True, text=True, check=False, timeout=patience(60)
    )
    return str(done.stdout)


def test_each_that_leaves_something_is_blamed_itself(tmp_path: Path):
    said = run(tmp_path, LEAVING)
    for name in (
        *("process", "pipes", "coroutine", "process_of_a_test_that_fails", "socket", "socket_in_a_circle"),
        *("connection", "thread"),
    ):
        assert f"ERROR test_them.py::test_{name} - " in said, said
    assert "8 passed" in said, said  # and two that failed anyway
    assert "ERROR test_them.py::test_collects" not in said, said
    assert "FAILED test_them.py::test_collects" not in said, said
    assert "a process that nobody waited for: " in said
    for left in (" left\n", " 'of asyncio'\n", " failed\n", "some.db\n", "the pipes of a process: "):
        assert left in said, said


def test_what_ends_in_time_is_nobodys_fault(tmp_path: Path):
    said = run(tmp_path, CLEAN)
    assert "4 passed" in said, said
    assert "ERROR" not in said, said


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc here")
def test_a_run_that_is_killed_leaves_nothing(tmp_path: Path):
    with subprocess.Popen(  # type: ignore[call-overload]
        **arguments(tmp_path, KILLED), stdout=subprocess.DEVNULL
    ) as tests:
        try:
            started = tmp_path / "started"
            pid = int(
                until(lambda: started.exists() and started.read_text().endswith("\n") and started.read_text())
            )
            assert runs(pid)
        finally:
            tests.kill()
    until(lambda: not runs(pid), "it outlived the run of tests that started it")
