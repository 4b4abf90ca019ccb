"""Real model servers from PyPI, each in an environment of its own: registered in one try, scored through the gateway.

Each needs the network, and half a minute to install, so they run only where they are named:
CHIPS_TESTS_REQUIRE=litserve,bentoml,mlflow.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.free_ports import claim_free_port
from tests.flow.background_servers import BackgroundServers
from tests.patience import patience
from tests.probes import is_ready
from tests.unit.cli.shell import Shell

pytestmark = pytest.mark.timeout(900)

LITSERVE = """
import sys
import litserve

class Doubles(litserve.LitAPI):
    def setup(self, device):
        pass
    def decode_request(self, request):
        return request["input"]
    def predict(self, x):
        return 2 * x
    def encode_response(self, output):
        return {"output": output}

if __name__ == "__main__":
    server = litserve.LitServer(Doubles(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
"""
BENTOML = """
import bentoml

@bentoml.service
class Doubles:
    @bentoml.api
    def double(self, x: float) -> float:
        return 2 * x
"""
MLFLOW = """
import sys
import mlflow
import pandas

class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["x"] * 2

frame = pandas.DataFrame({"x": [1.0, 2.0]})
signature = mlflow.models.infer_signature(frame, frame["x"] * 2)
mlflow.pyfunc.save_model("model", python_model=Doubles(), signature=signature, pip_requirements=[])
"""


_REQUIRED = os.environ.get("CHIPS_TESTS_REQUIRE", "").split(",")  # now: tests clear what begins with CHIPS_


class Server(NamedTuple):
    package: str
    code: str
    prepare: tuple[str, ...]  # a command before, in the folder of the code
    serve: tuple[str, ...]  # {bin}: the environment's programs; {port}
    ready: str
    body: Any
    answer: Any
    kind: str


SERVERS = {
    "litserve": Server(
        "litserve", LITSERVE, (), ("{bin}/python", "served.py", "{port}"), "/health", {"input": 21}, {"output": 42}, "LitServe",
    ),
    "bentoml": Server(
        "bentoml", BENTOML, (), ("{bin}/bentoml", "serve", "served:Doubles", "--host", "127.0.0.1", "--port", "{port}"),
        "/readyz", {"x": 21.0}, 42.0, "BentoML",
    ),
    "mlflow": Server(
        "mlflow", MLFLOW, ("{bin}/python", "served.py"),
        ("{bin}/mlflow", "models", "serve", "-m", "model", "--env-manager", "local", "--host", "127.0.0.1", "--port", "{port}"),
        "/ping", {"dataframe_records": [{"x": 21.0}]}, {"predictions": [{"x": 42.0}]}, "MLflow",
    ),
}  # fmt: skip


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A real server with a model that doubles, and its address."""
    if request.param not in _REQUIRED:
        pytest.skip(f"{request.param}: installed from PyPI only where CHIPS_TESTS_REQUIRE names it")
    server = SERVERS[request.param]
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "served.py").write_text(server.code)
    port = claim_free_port()
    programs = folder / "environment/bin"
    words = {"bin": str(programs), "port": str(port)}
    environ = {
        "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "BENTOML_DO_NOT_TRACK": "1", "MPLBACKEND": "agg",
    }  # fmt: skip
    for command, environment in (
        ((sys.executable, "-m", "venv", str(folder / "environment")), dict(os.environ)),
        (_installer(programs, server.package), dict(os.environ)),
        (server.prepare, environ),
    ):
        if command:
            filled = [word.format(**words) for word in command]
            subprocess.run(filled, cwd=folder, env=environment, check=True, timeout=600)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [word.format(**words) for word in server.serve],
            cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until(url + server.ready, process, folder / "log")
        yield server, url
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def _installer(programs: Path, package: str) -> tuple[str, ...]:
    uv = shutil.which("uv")  # much quicker, where it is there
    if uv is not None:
        return (uv, "pip", "install", "--quiet", "--python", str(programs / "python"), package)
    return (str(programs / "pip"), "install", "--quiet", package)


def _wait_until(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_at = time.monotonic() + patience(180)
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_at, log.read_text()
        if is_ready(url):
            return
        time.sleep(0.2)


def test_a_real_server_is_registered_in_one_try_and_answers(
    shell: Shell, background: BackgroundServers, served: tuple[Server, str]
):
    server, url = served
    gateway = f"http://127.0.0.1:{background.gateway(shell.registry).port}"
    told = shell.ok(
        *("register", "twice", url, "--yes", "--access", "public", "--gateway", gateway, "--json")
    ).json()
    assert told["live"] is True
    assert str(told["service"]).startswith(server.kind)
    assert told["example"] is not None
    body = json.dumps(server.body).encode()
    request = urllib.request.Request(f"{gateway}/twice", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=patience(30)) as answer:
        assert json.load(answer) == server.answer
