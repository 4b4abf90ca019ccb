"""From start to end: as Vertex AI starts it, as process 1, with a worker lost, on a port that is taken."""

import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import requests

from gateway.free_ports import claim_free_port
from tests.conftest import require
from tests.contract.backends.linear import TENSORS
from tests.contract.backends.process import TIMEOUT_S, R
from tests.contract.backends.r.conftest import Start
from tests.patience import patience
from tests.probes import children

pytestmark = pytest.mark.slow

SLOTS = 17  # one worker, and sixteen in the line before it


@pytest.fixture
def environ(linear_store: Path) -> dict[str, str]:
    return {"CHIPS_ARTIFACT": str(linear_store / "linear/1"), "CHIPS_CONCURRENCY": "1"}


def test_as_vertex_ai_and_kserve_start_it(start_r: Start, linear_store: Path):
    backend = start_r(
        {
            "CHIPS_MODEL": "",
            "CHIPS_VERSION": "",
            "PORT": "",
            "AIP_MODE": "PREDICTION",
            "AIP_HTTP_PORT": claim_free_port(),
            "AIP_HEALTH_ROUTE": "/health",
            "AIP_PREDICT_ROUTE": "/v1/endpoints/7/deployedModels/9.1:predict",
            "AIP_STORAGE_URI": linear_store / "linear/1",
        }
    ).ready()
    assert backend.ask("GET", "/health").status_code == 200
    answer = backend.ask(
        "POST",
        "/v1/endpoints/7/deployedModels/9.1:predict",
        json={"instances": [[1.5, 2, 3]], "parameters": {}},
    )
    assert (answer.status_code, answer.json()["predictions"]) == (200, [12.0])
    assert answer.headers["X-Chips-Model"] == "linear@1"
    assert backend.ask("POST", "/v1/endpoints/7/deployedModels/9X1:predict", json={}).status_code == 404

    assert backend.ask("GET", "/v2/health/live").status_code == 200
    assert backend.ask("GET", "/v2/models/linear/ready").status_code == 200
    inferred = backend.ask("POST", "/v2/models/linear/infer", json={"id": "7", "inputs": TENSORS}).json()
    assert inferred["outputs"] == [{"name": "y", "shape": [1], "datatype": "FP64", "data": [12.0]}]
    assert inferred["id"] == "7"
    assert backend.stop() == 0


def test_process_1_of_a_container_ends_on_sigterm(start_r: Start, environ: dict[str, str]):
    unshare = shutil.which("unshare")
    namespace = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    works = unshare and subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
    require("unshare", available=bool(works), why="no process namespace can be made on this machine")
    backend = start_r(environ, (*namespace, *R)).ready()
    assert backend.predict([1.5, 2, 3]).status_code == 200
    (first,) = children(backend.pid)
    os.kill(first, signal.SIGTERM)
    assert backend.end() == 0
    assert backend.why() == "stopped"


def test_ctrl_c_on_a_terminal_reaches_all_processes_and_is_an_orderly_end(
    start_r: Start, environ: dict[str, str]
):
    backend = start_r(environ).ready()
    os.killpg(backend.pid, signal.SIGINT)
    assert backend.end() == 0
    assert backend.why() == "stopped"


def test_a_worker_that_is_killed_is_replaced(start_r: Start, environ: dict[str, str]):
    backend = start_r(environ).ready()
    (server,) = children(backend.pid)
    (worker,) = children(server)
    os.kill(worker, signal.SIGKILL)
    backend.wait_for(lambda entry: "ended by itself" in str(entry["message"]))
    assert backend.predict([1.5, 2, 3]).json()["predictions"] == [12.0]
    assert children(server) != [worker]


def test_no_worker_outlives_a_server_that_is_killed(start_r: Start, environ: dict[str, str]):
    backend = start_r(environ).ready()
    (server,) = children(backend.pid)
    os.kill(server, signal.SIGKILL)
    # The workers hold the output open: it ends when the last of them has.
    assert backend.end() == 128 + signal.SIGKILL


def test_a_port_that_is_taken(start_r: Start, environ: dict[str, str]):
    first = start_r(environ).ready()
    second = start_r({**environ, "PORT": first.url.rpartition(":")[2]})
    assert second.end() == 71
    assert "PORT" in second.why()
    assert first.predict([1.5, 2, 3]).status_code == 200


def test_port_0_is_a_free_one(start_r: Start, environ: dict[str, str]):
    both = [start_r({**environ, "PORT": "0"}), start_r({**environ, "PORT": "0"})]
    assert len({backend.ready().url for backend in both}) == 2
    assert {backend.predict([1.5, 2, 3]).status_code for backend in both} == {200}


def test_everything_wrong_with_the_environment_is_said_at_once(start_r: Start):
    backend = start_r({"CHIPS_MODEL": "Big Model", "CHIPS_VERSOIN": "1", "CHIPS_MAX_BODY_BYTES": "many"})
    assert backend.end() == 78
    (line,) = [line for line in backend.output if line]
    assert line.startswith("error: ")
    for part in (
        "did you mean CHIPS_VERSION",
        "CHIPS_MODEL",
        "CHIPS_ARTIFACT is not set",
        "CHIPS_MAX_BODY_BYTES",
    ):
        assert part in line


def test_health_is_answered_while_all_workers_predict(
    start_r: Start, environ: dict[str, str], tmp_path: Path
):
    slow = tmp_path / "backend"
    shutil.copytree(Path(R[0]).parent, slow)
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    with (slow / "predict.R").open("a") as predict:
        predict.write(
            "quick <- predict_rows\n"
            "own_parameters <- function(model) 'wait'\n"
            "predict_rows <- function(model, rows, parameters) {\n"
            f"  if (isTRUE(parameters$wait)) file.create('{begun}')\n"
            f"  while (isTRUE(parameters$wait) && !file.exists('{gate}')) Sys.sleep(0.01)\n"
            "  quick(model, rows, parameters)\n}\n"
        )
    backend = start_r(environ, (str(slow / "entrypoint.sh"),)).ready()
    with ThreadPoolExecutor(SLOTS + 1) as threads:

        def send() -> Future[requests.Response]:
            body = {"instances": [[1.5, 2, 3]], "parameters": {"wait": True}}
            return threads.submit(backend.ask, "POST", "/predict", json=body)

        waiting = [send()]
        while not begun.exists():
            time.sleep(0.01)
        late = backend.predict([1, 1, 1], **{"X-Request-Timeout": "50"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
        # One too many for the worker and the line before it: the only one that is answered at once.
        waiting += [send() for _ in range(SLOTS)]
        done, rest = wait(waiting, timeout=patience(TIMEOUT_S), return_when=FIRST_COMPLETED)
        (refused,) = (answer.result() for answer in done)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
        assert backend.ask("GET", "/v2/health/live").status_code == 200
        gate.touch()
        assert [answer.result().status_code for answer in rest] == [200] * SLOTS
    timings = [entry["timing"]["queue"] for entry in backend.log if "timing" in entry]
    assert max(timings) > 0
