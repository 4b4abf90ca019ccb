"""Models as people write them in Julia with its standard library, served: the library's own answers, or a 4xx with the place."""

import json
import math
import os
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

RESULTS = HERE.parent / "results/julia.json"
IS_WRITTEN_DOWN = "CHIPS_ZOO_RESULTS" in os.environ

# By name in train.jl: the family, and the kind in the words of the page.
KINDS = {
    "ridge": ("Linear models", "Ridge regression, its coefficients as JSON"),
    "softmax": ("Linear models", "Softmax regression with its probabilities"),
    "neighbours": ("Neighbours and clusters", "Nearest neighbours"),
    "centres": ("Neighbours and clusters", "k-means"),
    "components": ("Linear algebra", "Principal components, two values a row"),
    "process": ("Linear algebra", "A Gaussian process by Cholesky"),
    "network": ("Neural networks", "Weights as Flux holds them, Float32"),
    "bayes": ("Categories", "Naive Bayes, whose dictionaries hold the categories"),
    "bayes-categories": ("Categories", "Naive Bayes with categories in the signature"),
    "words": ("Text", "Words counted in a sparse matrix"),
    "bond": ("Several outputs", "A table with a date and a number"),
}
FOUND: list[dict[str, str]] = []


@pytest.fixture(scope="module", autouse=True)
def written_down(julia: Julia) -> Iterator[None]:
    """`make zoo` keeps what was found, where every kind was asked."""
    yield
    if not IS_WRITTEN_DOWN or len(FOUND) < len(KINDS):
        return
    version = julia.run("-e", "print(VERSION)").rpartition(".")[0]
    found = sorted(FOUND, key=lambda kind: (kind["family"], kind["kind"]))
    content = {"language": "Julia", "made_with": {"Julia": version}, "kinds": found}
    RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
    try:
        yield backend.ready()
    finally:
        backend.kill()


def same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same, got, wanted))
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(same(got[name], wanted[name]) for name in wanted)
    if isinstance(wanted, float):
        return math.isclose(got, wanted, rel_tol=1e-5, abs_tol=1e-5)
    return bool(got == wanted)


@pytest.mark.parametrize("served", list(KINDS), indirect=True)
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
    family, words = KINDS[kind]
    FOUND.append(
        {
            "family": family,
            "kind": words,
            "format": next((trained / kind).glob("model.*")).suffix[1:],
            "outcome": "predicts",
            **ask_what_is_odd(served, metadata["inputs"], rows),
            "probabilities": "yes" if "probabilities" in expected else "",
            "note": "",
        }
    )


def ask_for_probabilities(served: Backend, expected: Any) -> None:
    body = {"instances": expected["rows"], "parameters": {"probabilities": True, "classes": True}}
    answer = served.ask("POST", "/predict", json=body)
    if "probabilities" not in expected:
        assert answer.status_code == 422, answer.text
        return
    assert same(answer.json()["predictions"], expected["probabilities"]), answer.text
    assert answer.json()["classes"] == expected["classes"]


def ask_what_is_odd(served: Backend, inputs: Any, rows: Any) -> dict[str, str]:
    """Null, a category never seen, a number out of range, a missing field: an answer, or a 422 that says where."""
    found = {"null": "predicts", "unseen": "", "out_of_range": ""}
    for field in inputs:
        name, is_text = field["name"], field["datatype"] == "BYTES"
        absent = {key: value for key, value in rows[1].items() if key != name}
        assert outcome_of(served, rows[0], absent) == "refused"
        if outcome_of(served, rows[0], {**rows[1], name: None}) == "refused":
            found["null"] = "refused"
        odd, question = ("never seen", "unseen") if is_text else (10**15, "out_of_range")
        answered = outcome_of(served, rows[0], {**rows[1], name: odd})
        found[question] = "refused" if "refused" in (answered, found[question]) else answered
    return found


def outcome_of(served: Backend, good: Any, row: Any) -> str:
    answer = served.predict(good, row)
    assert answer.status_code in {200, 422}, answer.text
    if answer.status_code == 200:
        assert len(answer.json()["predictions"]) == 2
        return "predicts"
    assert answer.json()["detail"].startswith("instances[1]"), answer.text
    return "refused"
