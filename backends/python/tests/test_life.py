"""From start to stop: ready only when warm, never more at once than declared, and an end that finishes what runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chips_backend import testing
from chips_backend.testing import Answer, Backend, running, write_artifact

ROWS = [[1.0, 2]]


class Gate:
    """Holds predictions until it is opened; knows how many have begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "begun").mkdir(parents=True)
        self.parameters = {"begun": str(folder / "begun"), "gate": str(folder / "open")}

    @property
    def begun(self) -> int:
        return sum(1 for _ in (self.folder / "begun").iterdir())

    def wait(self, count: int) -> None:
        wait_until(lambda: self.begun >= count)

    def open(self) -> None:
        (self.folder / "open").touch()


def wait_until(holds: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + testing._PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@pytest.fixture
def gate(tmp_path):
    made = Gate(tmp_path / "gate")
    yield made
    made.open()


class Call(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, backend: Backend, gate: Gate, headers: dict[str, str] | None = None) -> None:
        super().__init__(daemon=True)
        self.answer: Answer | None = None
        self._ask = lambda: backend.post(
            "/predict", {"instances": ROWS, "parameters": gate.parameters}, headers
        )
        self.start()

    def run(self) -> None:
        self.answer = self._ask()

    @property
    def status(self) -> int:
        self.join(testing._PATIENCE_S)
        assert self.answer is not None
        return self.answer.status


# -- start


def test_live_at_once_ready_when_warm(tmp_path, write_model, gate, start):
    samples = [
        {"request": {"instances": ROWS, "parameters": gate.parameters}, "response": {"predictions": [3.0]}}
    ]
    backend = start({"CHIPS_ARTIFACT": str(write_model(tmp_path / "a", samples=samples))}).listen()
    gate.wait(1)
    assert backend.get("/v2/health/live").status == 200
    for ask in (
        lambda: backend.get("/v2/health/ready"),
        lambda: backend.get("/v2/models/test"),
        lambda: backend.get("/openapi.json"),
        lambda: backend.post("/predict", {"instances": ROWS}),
        lambda: backend.post("/v2/models/test/infer", {}),
    ):
        answer = ask()
        assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "not-ready", "1")
    gate.open()
    backend.wait_for("ready")
    assert backend.get("/v2/health/ready").status == 200
    assert backend.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (
            {"samples": [{"request": {"instances": ROWS}, "response": {"predictions": [4.0]}}]},
            65,
            "came out differently",
        ),
        ({"samples": [{"request": {"instances": [[-1.0, 0]]}, "response": {}}]}, 65, "could not be scored"),
        ({"samples": [{"request": {"instances": [["x"]]}, "response": {}}]}, 65, "could not be scored"),
        ({"format": "rds"}, 70, 'not "rds"'),
        ({"model": "other"}, 65, "correct one of them"),
    ],
)
def test_what_is_wrong_stops_the_start(tmp_path, write_model, change, code, says, start):
    artifact = write_model(tmp_path / "a", **change)
    backend = start({"CHIPS_ARTIFACT": str(artifact), "CHIPS_MODEL": "test", "CHIPS_VERSION": "1"})
    assert backend.end() == code
    last = backend.log[-1]
    assert last["severity"] == "ERROR"
    assert last["message"].startswith("cannot start: ")
    assert says in last["message"]
    assert not any(line["message"].startswith("ready") for line in backend.log)


def test_a_model_that_cannot_be_loaded_says_what_it_was_made_with(tmp_path, in_processes, start):
    artifact = write_artifact(
        tmp_path,
        {"model.py": b"raise ImportError('no such package')"},
        format="python",
        runtime={"thing": "1.2"},
    )
    for command in ((sys.executable, "-m", "chips_backend"), in_processes):
        backend = start({"CHIPS_ARTIFACT": str(artifact)}, command=command)
        assert backend.end() == 70
        assert "no such package" in backend.log[-1]["message"]
        assert "It was made with thing 1.2" in backend.log[-1]["message"]


def test_a_small_difference_within_the_tolerance_is_none(tmp_path, write_model):
    sample = {"request": {"instances": ROWS}, "response": {"predictions": [3.001]}, "tolerance": 0.01}
    with running({"CHIPS_ARTIFACT": str(write_model(tmp_path / "a", samples=[sample]))}) as backend:
        assert backend.get("/v2/health/ready").status == 200


def test_without_samples_a_row_of_zeros_warms_it_up(tmp_path, write_model):
    with running({"CHIPS_ARTIFACT": str(write_model(tmp_path / "a", samples=[]))}) as backend:
        (line,) = [line for line in backend.log if line["severity"] == "WARNING"]
        assert line["message"].startswith("warmed up with a likely row")


def test_a_taken_port_is_told(model, start):
    with socket.create_server(("", 0)) as taken:
        backend = start({"CHIPS_ARTIFACT": str(model), "PORT": str(taken.getsockname()[1])})
        assert backend.end() == 71
    assert backend.log[-1]["message"].startswith("cannot listen on port")


# -- at work


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_as_many_at_once_as_declared_then_a_line_then_503(model, gate, in_processes, kind):
    command = in_processes if kind == "processes" else (sys.executable, "-m", "chips_backend")
    with running({"CHIPS_ARTIFACT": str(model)}, command=command) as backend:
        assert backend.get("/v2/models/test").json["parameters"]["concurrency"] == 2
        at_once, waiting, too_many = 2, 2 * 16, 10
        calls = [Call(backend, gate) for _ in range(at_once + waiting + too_many)]
        gate.wait(at_once)
        wait_until(lambda: sum(not call.is_alive() for call in calls) >= too_many)
        refused = [call.answer for call in calls if call.answer is not None]
        assert len(refused) == too_many
        for answer in refused:
            assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (
                503,
                "overloaded",
                "1",
            )
        assert gate.begun == at_once
        assert backend.get("/v2/health/live").status == 200, "the web side is never busy"
        gate.open()
        assert sorted(call.status for call in calls) == [200] * (at_once + waiting) + [503] * too_many


def test_what_cannot_begin_in_time_is_never_predicted(model, gate):
    with running({"CHIPS_ARTIFACT": str(model), "CHIPS_CONCURRENCY": "1"}) as backend:
        first = Call(backend, gate)
        gate.wait(1)
        late = Call(backend, gate, {"X-Request-Timeout": "50"})
        assert late.status == 504
        assert late.answer is not None
        assert late.answer.json["code"] == "deadline-exceeded"
        gate.open()
        assert first.status == 200
        assert backend.post("/predict", {"instances": ROWS}).status == 200
        assert gate.begun == 1


def test_who_leaves_the_line_is_never_predicted(model, gate):
    with running({"CHIPS_ARTIFACT": str(model), "CHIPS_CONCURRENCY": "1"}) as backend:
        first = Call(backend, gate)
        gate.wait(1)
        connection = backend.connect()
        body = f'{{"instances": [[7.0, 7]], "parameters": {{"begun": "{gate.parameters["begun"]}"}}}}'
        connection.request(
            "POST", "/predict", body, {"Content-Type": "application/json", "X-Request-Id": "gone"}
        )
        connection.close()
        line = backend.wait_for(lambda line: line.get("request_id") == "gone")
        assert (line["code"], line["httpRequest"]["status"]) == ("client-closed-request", 499)
        gate.open()
        assert first.status == 200
        assert backend.post("/predict", {"instances": ROWS}).status == 200
        assert gate.begun == 1


def test_who_leaves_a_running_prediction_does_not_free_its_slot(model, gate):
    with running({"CHIPS_ARTIFACT": str(model), "CHIPS_CONCURRENCY": "1"}) as backend:
        connection = backend.connect()
        body = json.dumps({"instances": ROWS, "parameters": gate.parameters})
        connection.request(
            "POST", "/predict", body, {"Content-Type": "application/json", "X-Request-Id": "gone"}
        )
        gate.wait(1)
        connection.close()
        backend.wait_for(lambda line: line.get("request_id") == "gone")
        answer = backend.post("/predict", {"instances": ROWS}, {"X-Request-Timeout": "50"})
        assert answer.status == 504, "its thread is still at work"
        gate.open()
        assert backend.post("/predict", {"instances": ROWS}).status == 200


def test_a_process_that_dies_costs_one_request(model, in_processes):
    with running({"CHIPS_ARTIFACT": str(model)}, command=in_processes) as backend:
        for _ in range(3):
            answer = backend.post("/predict", {"instances": [[-3.0, 0]]})
            assert (answer.status, answer.json["code"]) == (500, "prediction-failed")
            for _ in range(4):
                assert backend.post("/predict", {"instances": ROWS}).json["predictions"] == [3.0]
        assert backend.post("/predict", {"instances": [[-2.0, 0]]}).json["detail"] == "there is no such wine"


@pytest.mark.parametrize("target_ms", ["0", "50"])
def test_a_prediction_that_never_ends_is_ended_at_the_deadline(model, in_processes, target_ms):
    environ = {"CHIPS_ARTIFACT": str(model), "CHIPS_CONCURRENCY": "1", "CHIPS_BATCH_TARGET_MS": target_ms}
    with running(environ, command=in_processes) as backend:
        answer = backend.post("/predict", {"instances": [[-9.0, 0]]}, {"X-Request-Timeout": "300"})
        assert (answer.status, answer.json["code"]) == (504, "deadline-exceeded")
        assert backend.post("/predict", {"instances": ROWS}).json["predictions"] == [3.0]
        assert backend.get("/v2/health/ready").status == 200


def test_ready_tells_where_every_thread_hangs(model, gate):
    with running({"CHIPS_ARTIFACT": str(model), "CHIPS_CONCURRENCY": "1"}) as backend:
        body = {"instances": ROWS, "parameters": gate.parameters}

        def hangs() -> bool:  # where the machine is busy, the first may be late before it has begun
            answer = backend.post("/predict", body, {"X-Request-Timeout": "300"})
            assert (answer.status, answer.json["code"]) == (504, "deadline-exceeded")
            return bool(gate.begun > 0)

        wait_until(hangs)
        stuck = backend.get("/v2/health/ready")
        assert (stuck.status, stuck.json["code"]) == (503, "not-ready")
        gate.open()
        wait_until(lambda: backend.get("/v2/health/ready").status == 200)
        assert backend.post("/predict", {"instances": ROWS}).status == 200


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_processes_end_with_the_one_that_started_them(model, in_processes, start):
    backend = start({"CHIPS_ARTIFACT": str(model)}, command=in_processes).wait_until_ready()
    workers = backend.descendants()
    assert len(workers) >= 3  # the fork server, and two that predict
    backend.process.kill()
    backend.process.wait()
    wait_until(lambda: all(is_gone(pid) for pid in workers))
    backend.end()


HEAVY = """
import os, threading
import numpy as np

def load(folder):
    if STARTS_A_THREAD:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return np.ones(100 << 17)  # 100 MiB

def predict(model, rows, parameters):
    return [float(model.sum())] * len(rows)
"""


def own_mib(pids: list[int]) -> float:
    """The memory of processes, what several share counted once."""
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            kib += int(line.split()[1]) if line.startswith("Pss:") else 0
    return kib / 1024


@pytest.mark.parametrize("starts_a_thread", [False, True])
def test_slots_share_the_memory_of_a_model(tmp_path, in_processes, starts_a_thread):
    code = HEAVY.replace("STARTS_A_THREAD", str(starts_a_thread))
    signature = {"inputs": [{"name": "a", "datatype": "FP64"}]}
    folder = write_artifact(tmp_path, {"model.py": code.encode()}, format="python", signature=signature)
    environ = {"CHIPS_ARTIFACT": str(folder), "CHIPS_CONCURRENCY": "4"}
    with running(environ, command=in_processes) as backend:
        answer = backend.post("/predict", {"instances": [[1.0]]})
        assert answer.json["predictions"] == [100 << 17]
        took = own_mib(backend.descendants())
    if starts_a_thread:  # a fork would lose it
        assert took > 4 * 100
    else:
        assert 100 < took < 3 * 100  # the model once, and what each process has of its own


# -- stop


@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_then_it_ends_with_0(model, gate, in_processes, kind, number, start):
    command = in_processes if kind == "processes" else (sys.executable, "-m", "chips_backend")
    backend = start({"CHIPS_ARTIFACT": str(model)}, command=command).wait_until_ready()
    call = Call(backend, gate)
    gate.wait(1)
    backend.process.send_signal(number)
    backend.wait_for("stopping")
    wait_until(lambda: is_closed(backend.port))
    gate.open()
    assert call.status == 200
    assert backend.end() == 0
    assert backend.log[-1]["message"] == "stopped"


def is_closed(port: int) -> bool:
    """Whether nobody listens. One that stops listening during the handshake resets the connection instead of refusing it."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError as error:
        return isinstance(error, ConnectionRefusedError)
    return False


def test_what_never_ends_is_left_behind_after_its_grace(model, gate, start):
    backend = start({"CHIPS_ARTIFACT": str(model)}).wait_until_ready()
    connection = backend.connect()
    body = json.dumps({"instances": ROWS, "parameters": gate.parameters})
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    gate.wait(1)
    began = time.monotonic()
    assert backend.end(signal.SIGTERM) == 0
    assert time.monotonic() - began > 7, "it had its grace"
    connection.close()


def test_it_is_a_good_first_process_of_a_container(model, gate, start):
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("unshare: no name space of its own for processes may be made here")
    backend = start({"CHIPS_ARTIFACT": str(model)}, command=(*unshare, sys.executable, "-m", "chips_backend"))
    backend.wait_until_ready()
    (first,) = backend.descendants()
    assert "NSpid:" not in (status := Path(f"/proc/{first}/status").read_text()) or "\t1\n" in status
    call = Call(backend, gate)
    gate.wait(1)
    os.kill(first, signal.SIGTERM)
    backend.wait_for("stopping")
    gate.open()
    assert call.status == 200
    assert backend.end() == 0


def test_a_signal_before_it_listens_ends_it(model, start):
    backend = start({"CHIPS_ARTIFACT": str(model)})
    wait_until(lambda: catches_sigterm(backend.process.pid))
    assert backend.end(signal.SIGTERM) == 0


def catches_sigterm(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))
    return False
