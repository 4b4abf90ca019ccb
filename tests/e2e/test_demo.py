"""`make demo`, as a person meets it: twice, with the port taken, and stopped with Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.probes import is_closed

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(180)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "examples.demo", "--folder", str(folder), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(demo: subprocess.Popen[str], text: str) -> str:
    assert demo.stdout is not None
    seen = ""
    for line in demo.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"it ended before it said {text!r}:\n{seen}")


@pytest.mark.slow
def test_it_runs_twice_and_takes_another_port_where_its_own_is_taken(tmp_path: Path):
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last demo's connections may linger
        try:
            holder.bind(("127.0.0.1", 8080))
        except OSError:
            pass  # somebody else has it, which is as good
        else:
            holder.listen()
        for _ in range(2):
            demo = start(tmp_path / "demo", "--once")
            out, _ = demo.communicate()
            assert demo.returncode == 0, out
            assert "port 8080 is taken here" in out
            assert '"model": "wine", "version": "1"}' in out
            assert "\x1b" not in out


def test_it_keeps_running_until_ctrl_c_which_ends_all_of_it(tmp_path: Path):
    demo = start(tmp_path / "demo")
    try:
        seen = read_until(demo, "Ctrl-C stops all of it")
        other, _ = start(tmp_path / "demo", "--once").communicate()
        assert "another demo runs in" in other
        ports = {int(port) for port in re.findall(r"ready at http://127.0.0.1:(\d+)", seen)}
        assert len(ports) == 2
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate()
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 0
    assert "stopped: the gateway, the backend, everything" in out
    for port in ports:
        assert is_closed(port)


def test_a_folder_with_somebodys_files_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    demo = start(tmp_path, "--once")
    out, _ = demo.communicate()
    assert demo.returncode == 1
    assert "holds files that are not a demo's" in out
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
