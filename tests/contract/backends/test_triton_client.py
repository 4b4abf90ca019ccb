"""A client that others wrote and many use speaks to the backend and to the gateway alike: NVIDIA's, for the Open Inference Protocol."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from gateway.free_ports import claim_free_port
from tests.flow.background_servers import BackgroundServers
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def backend(python_environment: dict[str, str]) -> Iterator[int]:
    port = claim_free_port()
    process = subprocess.Popen(
        shlex.split(f"{sys.executable} -m chips_backend"),
        env={**python_environment, "PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["message"].startswith("ready:"):
            break
    else:
        pytest.fail("the backend never got ready")
    yield port
    process.terminate()
    process.communicate(timeout=patience(30))


@pytest.fixture(scope="module")
def gateway(backend: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    registry = f"sqlite://{tmp_path_factory.mktemp('registry')}/registry.db"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gateway.cli", "register", "wine", f"http://127.0.0.1:{backend}"),
            *("--access", "public", "--registry", registry, "--gateway", "http://127.0.0.1:9"),
        ],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    background = BackgroundServers()
    yield background.gateway(registry).port
    background.close()


@pytest.fixture(params=["backend", "gateway"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = triton.InferenceServerClient(f"127.0.0.1:{request.getfixturevalue(request.param)}")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def samples(wine: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((wine / "manifest.json").read_bytes())["samples"]
    return found


def test_health_and_metadata(client: Any):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("wine")
    assert client.is_model_ready("wine", "1")
    metadata = client.get_model_metadata("wine")
    assert metadata["name"] == "wine"
    assert metadata["versions"] == ["1"]
    assert {tensor["datatype"] for tensor in metadata["inputs"]} == {"FP64"}


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("binary", [True, False])  # True is what the client does unless it is told otherwise
def test_scores_are_the_published_ones(
    client: Any, samples: list[dict[str, Any]], version: str, binary: bool
):
    rows = [sample["request"]["instances"][0] for sample in samples]
    inputs = []
    for name in rows[0]:
        column = np.array([row[name] for row in rows], dtype=np.float64)
        inputs.append(triton.InferInput(name, list(column.shape), "FP64"))
        inputs[-1].set_data_from_numpy(column, binary_data=binary)
    asked = None if binary else [triton.InferRequestedOutput("cultivar", binary_data=False)]
    result = client.infer("wine", inputs, model_version=version, request_id="r-1", outputs=asked)
    answer = result.get_response()
    assert answer["id"] == "r-1"
    (output,) = answer["outputs"]
    published = [sample["response"]["predictions"][0] for sample in samples]
    assert result.as_numpy("cultivar").tolist() == published
    assert ("data" in output, output.get("parameters")) == (
        (False, {"binary_data_size": 8 * len(published)}) if binary else (True, None)
    )


def test_an_error_is_told_in_the_clients_own_words(client: Any):
    wrong = triton.InferInput("no_such_input", [1], "FP64")
    wrong.set_data_from_numpy(np.array([1.0]))
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("wine", [wrong])
    assert "no_such_input" in str(caught.value)
    with pytest.raises(triton.InferenceServerException) as caught:
        client.get_model_metadata("nobody")
    assert "404" in str(caught.value.status())
