"""A Julia process: started as Vertex AI and KServe do, busy, asked to stop."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.free_ports import claim_free_port
from tests.contract.backends.julia.conftest import Start
from tests.contract.backends.languages import Julia
from tests.contract.backends.linear import TENSORS, publish
from tests.contract.backends.process import JULIA, TIMEOUT_S, Backend
from tests.patience import patience

pytestmark = pytest.mark.timeout(600)  # a Julia compiles its program at each start

ROW = {"x": 1.5, "n": 2, "k": 3}
VERTEX = "/v1/endpoints/7/deployedModels/9"


@pytest.fixture(scope="module")
def artifact(linear_jls: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    store = tmp_path_factory.mktemp("store")
    publish(str(store), linear_jls)
    return str(store / "linear" / "1")


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as callers:
        yield callers


def predict(backend: Backend, timeout_ms: int | None = None, **parameters: Any) -> requests.Response:
    headers = {} if timeout_ms is None else {"X-Request-Timeout": str(timeout_ms)}
    return backend.ask(
        "POST", "/predict", json={"instances": [ROW], "parameters": parameters}, headers=headers
    )


def occupy(backend: Backend, callers: ThreadPoolExecutor, gate: Path) -> "Future[requests.Response]":
    """Predictions that hold every slot until `gate` is there; they do when this returns. One of them."""
    slots = backend.ask("GET", "/v2/models/linear").json()["parameters"]["concurrency"]
    begun = [gate.with_name(f"{gate.name} {slot}") for slot in range(slots)]
    held = [callers.submit(predict, backend, begun=str(path), gate=str(gate)) for path in begun]
    wait_until_there(*begun)
    return held[0]


def wait_until_there(*paths: Path) -> None:
    while not all(path.exists() for path in paths):
        time.sleep(0.01)


def test_as_vertex_and_kserve_start_it(
    artifact: str, start_julia: Start, callers: ThreadPoolExecutor, tmp_path: Path
):
    """Only names that Vertex AI sets; then the requests that either of them sends; then the end."""
    port = claim_free_port()
    backend = start_julia(
        {
            "PORT": "",
            "AIP_HTTP_PORT": port,
            "AIP_STORAGE_URI": artifact,
            "AIP_PREDICT_ROUTE": f"{VERTEX}:predict",
            "AIP_HEALTH_ROUTE": VERTEX,
            "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
        }
    ).ready()
    assert backend.url.endswith(f":{port}")
    assert backend.ask("GET", VERTEX).status_code == 200
    answer = backend.ask("POST", f"{VERTEX}:predict", json={"instances": [ROW]})
    assert answer.json() == {"predictions": [12.0], "model": "linear", "version": "1"}

    assert backend.ask("GET", "/v2/health/live").status_code == 200
    assert backend.ask("GET", "/v2/models/linear/ready").status_code == 200
    inferred = backend.ask("POST", "/v2/models/linear/infer", json={"id": "7", "inputs": TENSORS}).json()
    assert inferred["outputs"] == [{"name": "y", "shape": [1], "datatype": "FP64", "data": [12.0]}]
    assert inferred["id"] == "7"

    # What runs when it is asked to stop is finished.
    gate = tmp_path / "gate"
    held = occupy(backend, callers, gate)
    backend.send_signal(signal.SIGTERM)
    backend.wait_for(lambda entry: str(entry["message"]).startswith("stopping"))
    gate.touch()
    assert held.result().json()["predictions"] == [12.0]
    assert backend.end() == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/v2/health/live", timeout=patience(5))


def test_code_around_the_model_replaces_what_it_defines(artifact: str, each_julia: Julia, tmp_path: Path):
    own = tmp_path / "predict.jl"
    own.write_text(
        'const PARAMETERS = ["times"]\n'
        'predict(weights, rows, parameters) = get(parameters, "times", 1) .* sum(weights .* values(rows))\n'
    )
    environ = {
        **each_julia.environ,
        "CHIPS_ARTIFACT": artifact,
        "CHIPS_CONCURRENCY": "1",
        "CHIPS_PREDICT": str(own),
    }
    backend = Backend(JULIA, environ)
    try:
        backend.ready()
        assert predict(backend, times=2).json()["predictions"] == [24.0]
        assert predict(backend, gate="x").status_code == 422
    finally:
        backend.kill()


def test_busy_it_answers_or_refuses(
    artifact: str, start_julia: Start, callers: ThreadPoolExecutor, tmp_path: Path
):
    backend = start_julia({"CHIPS_ARTIFACT": artifact, "CHIPS_CONCURRENCY": 1}).ready()
    # While it computes, and no other task can have that thread, it answers.
    begun, enough = tmp_path / "begun", tmp_path / "enough"
    computing = callers.submit(predict, backend, begun=str(begun), compute_until=str(enough))
    wait_until_there(begun)
    for _ in range(4):
        assert backend.ask("GET", "/v2/health/live").status_code == 200
    assert not computing.done()
    enough.touch()
    assert computing.result().status_code == 200
    gate = tmp_path / "gate"
    held = occupy(backend, callers, gate)
    late = predict(backend, timeout_ms=50)
    assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
    # One too many for the slot and the line before it: the only one that is answered at once.
    done, rest = wait(
        [callers.submit(predict, backend) for _ in range(17)],
        patience(TIMEOUT_S),
        return_when=FIRST_COMPLETED,
    )
    (full,) = (answer.result() for answer in done)
    assert (full.status_code, full.json()["code"]) == (503, "overloaded")
    assert full.headers["Retry-After"] == "1"
    gate.touch()
    assert {call.result().status_code for call in [held, *rest]} == {200}
    # Model code that ends the process costs its own request only.
    ended = predict(backend, exit=3)
    assert (ended.status_code, ended.json()["code"]) == (500, "prediction-failed")
    assert predict(backend).status_code == 200
    # One that still runs at its deadline is told so, and not ready is said until it ends.
    gate = tmp_path / "other gate"
    while "before the prediction ended" not in (
        over := predict(backend, 500, gate=str(gate)).json()["detail"]
    ):
        assert "before a slot was free" in over
    assert backend.ask("GET", "/v2/health/ready").status_code == 503
    gate.touch()
    while backend.ask("GET", "/v2/health/ready").status_code != 200:
        pass
    # The shell is killed without warning: Julia, whose input has ended, stops too.
    backend.send_signal(signal.SIGKILL)
    backend.wait_for(lambda entry: entry["message"] == "stopped")


@pytest.mark.parametrize(
    ("environ", "code", "words"),
    [
        ({}, 78, "CHIPS_ARTIFACT is not set"),
        ({"CHIPS_ARTIFACT": "/x", "CHIPS_CONCURENCY": "2"}, 78, "did you mean CHIPS_CONCURRENCY?"),
        ({"CHIPS_ARTIFACT": "/nowhere"}, 66, "there is no /nowhere/manifest.json"),
    ],
)
def test_what_stops_the_start(start_julia: Start, environ: dict[str, str], code: int, words: str):
    backend = start_julia(environ)
    assert backend.end() == code
    assert words in "\n".join(backend.output)
