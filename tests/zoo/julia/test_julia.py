"""Models as people write them in Julia with its standard library, served: the library's own answers, or a 4xx with the place."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.backends.languages import Julia
from tests.contract.backends.process import JULIA_PREDICT, ROOT, Backend

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(600)

# What CI runs of them: each format, several outputs, text, and categories that only the model knows.
IN_CI = ("ridge", "network", "softmax", "bayes", "bond")
OTHERS = ("forest", "neighbours", "centres", "process", "components", "bayes-categories", "words")
KINDS = [*IN_CI, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)]


@pytest.fixture(scope="module")
def trained(julia: Julia, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind, trained in a process that knows nothing of CHIPS."""
    folder = tmp_path_factory.mktemp("julia-zoo")
    julia.run(str(HERE / "train.jl"), str(folder))
    return folder


@pytest.fixture
def served(request: pytest.FixtureRequest, julia: Julia, trained: Path, tmp_path: Path) -> Iterator[Backend]:
    kind: str = request.param
    folder = trained / kind
    (model,) = folder.glob("model.*")
    described = [("--signature", folder / "signature.json"), ("--samples", folder / "samples.json")]
    command = [sys.executable, "-m", "gateway.cli", "publish", str(model), "--model", kind, "--version", "1"]
    command += ["--store", str(tmp_path), "--by", "test", "--format", model.suffix[1:], "--no-try"]
    command += [str(part) for pair in described for part in pair]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    backend = Backend(
        JULIA_PREDICT,
        {**julia.environ, "PREDICT": str(HERE / "predict.jl"), "CHIPS_ARTIFACT": str(tmp_path / kind / "1")},
    )
    yield backend.ready()
    backend.kill()


def same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same, got, wanted))
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(same(got[name], wanted[name]) for name in wanted)
    if isinstance(wanted, float):
        return math.isclose(got, wanted, rel_tol=1e-5, abs_tol=1e-5)
    return bool(got == wanted)


@pytest.mark.parametrize("served", KINDS, indirect=True)
def test_it_predicts_as_in_its_own_session(served: Backend, trained: Path, request: pytest.FixtureRequest):
    kind = request.node.callspec.params["served"]
    expected = json.loads((trained / kind / "expected.json").read_text())
    rows, wanted = expected["rows"], expected["predictions"]
    for chosen in ([0], [1], [0, 1], [3, 4, 5], list(range(7)), list(reversed(range(7))), [2, 2]):
        answer = served.predict(*(rows[at] for at in chosen))
        assert answer.status_code == 200, answer.text
        assert same(answer.json()["predictions"], [wanted[at] for at in chosen]), (chosen, answer.text)
    metadata = served.ask("GET", f"/v2/models/{kind}").json()
    outputs = [tensor["name"] for tensor in metadata["outputs"]]
    tensors = [
        {"name": i["name"], "datatype": i["datatype"], "shape": [7], "data": [row[i["name"]] for row in rows]}
        for i in metadata["inputs"]
    ]
    inferred = served.ask("POST", f"/v2/models/{kind}/infer", json={"inputs": tensors}).json()["outputs"]
    assert [tensor["name"] for tensor in inferred] == outputs
    assert all(tensor["shape"][0] == 7 for tensor in inferred)
    ask_for_probabilities(served, expected)
    ask_what_is_odd(served, metadata["inputs"], rows)


def ask_for_probabilities(served: Backend, expected: Any) -> None:
    body = {"instances": expected["rows"], "parameters": {"probabilities": True, "classes": True}}
    answer = served.ask("POST", "/predict", json=body)
    if "probabilities" not in expected:
        assert answer.status_code == 422, answer.text
        return
    assert same(answer.json()["predictions"], expected["probabilities"]), answer.text
    assert answer.json()["classes"] == expected["classes"]


def ask_what_is_odd(served: Backend, inputs: Any, rows: Any) -> None:
    """Null, a category never seen, a number out of range, a missing column: an answer, or a 422 that says where."""
    for field in inputs:
        name = field["name"]
        odd = "never seen" if field["datatype"] == "BYTES" else 10**15
        absent = {key: value for key, value in rows[1].items() if key != name}
        for row in ({**rows[1], name: None}, {**rows[1], name: odd}, absent):
            answer = served.predict(rows[0], row)
            assert answer.status_code in {200, 422}, answer.text
            if answer.status_code == 422:
                assert answer.json()["detail"].startswith("instances[1]"), answer.text
            else:
                assert len(answer.json()["predictions"]) == 2
                assert row is not absent
