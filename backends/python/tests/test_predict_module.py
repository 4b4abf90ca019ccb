"""CHIPS_PREDICT: a file of the model's author replaces what predict.py has."""

import pytest
from chips_backend.testing import running, write_artifact

MODEL = "def load(folder):\n    return 10\n\ndef predict(model, rows, parameters):\n    return [model * row[0] for row in rows]\n"
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]}
OWN = """
import os
from helper import plus
from chips_backend.model import Refused

RUNS_IN = "{runs_in}"
PARAMETERS = {{"add": float}}


def predict(model, rows, parameters):
    if rows[0][0] < 0:
        raise Refused("must not be negative", row=0, field=0)
    return [plus(value, parameters.get("add", 0.0)) for value in model.predict(model.table(rows), {{}})]
"""


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(
        tmp_path / "artifact", {"model.py": MODEL.encode()}, format="python", signature=SIGNATURE
    )


@pytest.mark.parametrize("runs_in", ["thread", "process"])
def test_it_counts_in_threads_and_processes(runs_in, artifact, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/helper.py").write_text("def plus(a, b):\n    return a + b\n")
    (tmp_path / "own/predict.py").write_text(OWN.format(runs_in=runs_in))
    environ = {"CHIPS_ARTIFACT": str(artifact), "CHIPS_PREDICT": str(tmp_path / "own/predict.py")}
    with running(environ) as backend:
        answer = backend.post("/predict", {"instances": [[1.5]], "parameters": {"add": 2}})
        assert answer.json["predictions"] == [17.0]
        assert backend.get("/v2/models/test").json["parameters"]["accepts"] == ["add"]
        refused = backend.post("/predict", {"instances": [[-1.0]]})
        assert (refused.status, refused.json["code"]) == (422, "invalid-instances")


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, 78, "is no file"),
        ("raise RuntimeError('not today')", 70, "not today"),
        ("def predcit(model, rows, parameters): ...", 70, "has none of"),
    ],
)
def test_one_that_is_wrong_stops_the_start(content, code, says, artifact, tmp_path, start):
    own = tmp_path / "predict.py"
    if content is not None:
        own.write_text(content)
    backend = start({"CHIPS_ARTIFACT": str(artifact), "CHIPS_PREDICT": str(own)})
    assert backend.end() == code
    assert says in str(backend.log) + backend.errors.decode()
