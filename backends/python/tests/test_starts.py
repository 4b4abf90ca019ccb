"""Models that must not become ready, and what the start says of them; and some that may, though little is known of them."""

import io
import json
import pickle
import sys
import threading
import types
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from chips_backend.config import Config
from chips_backend.logs import Log
from chips_backend.service import Loaded, load
from chips_backend.testing import running, write_artifact
from chips_backend.warm_up import StartError

NUMBERS = np.random.default_rng(3).normal(size=(60, 2))
LABELS = (NUMBERS[:, 0] > 0).astype(int)
INPUTS = [{"name": name, "datatype": "FP64"} for name in "ab"]


async def started(folder: Path, files: dict[str, bytes], **fields: Any) -> Loaded:
    artifact = write_artifact(folder / "artifact", files, **fields)
    return await load(Config(artifact=str(artifact), cache_dir=folder / "cache"), Log(io.StringIO()))


def dumped(model: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(model, stream)
    return stream.getvalue()


async def refusal(folder: Path, files: dict[str, bytes], **fields: Any) -> str:
    with pytest.raises(StartError) as caught:
        await started(folder, files, **fields)
    assert caught.value.exit_code == 65
    return str(caught.value)


def old_xgboost() -> tuple[bytes, Any]:
    """A file as XGBoost 1.7 wrote it: with a category column, and without its categories."""
    import xgboost

    kinds = pd.CategoricalDtype(["red", "green", "blue"])
    frame = pd.DataFrame(
        {"colour": pd.Series(["red", "green", "blue"] * 20).astype(kinds), "x": NUMBERS[:, 0]}
    )
    model = xgboost.XGBClassifier(n_estimators=9, enable_categorical=True).fit(
        frame, frame["colour"] == "blue"
    )
    document = json.loads(model.get_booster().save_raw("json"))
    del document["learner"]["gradient_booster"]["model"]["cats"]
    wanted = model.predict_proba(frame.head(3))[:, 1].tolist()
    return json.dumps({**document, "version": [1, 7, 6]}).encode(), wanted


async def test_categories_that_nobody_knows_stop_the_start_until_the_signature_lists_them(tmp_path):
    content, wanted = old_xgboost()
    colour = {"name": "colour", "datatype": "BYTES"}
    fields: dict[str, Any] = {"format": "xgboost"}
    inputs: list[dict[str, Any]] = [colour, {"name": "x", "datatype": "FP64"}]
    text = await refusal(tmp_path, {"model.json": content}, **fields, signature={"inputs": inputs})
    assert "categories in colour" in text
    assert '"categories" in the signature' in text
    inputs[0] = {**colour, "categories": ["red", "green", "blue"]}
    loaded = await started(tmp_path / "2", {"model.json": content}, **fields, signature={"inputs": inputs})
    rows = [["red", float(NUMBERS[0, 0])], ["green", float(NUMBERS[1, 0])], ["blue", float(NUMBERS[2, 0])]]
    for chosen in ([0], [1], [2], [2, 0], [0, 1, 2], [2, 2, 2, 1]):
        outcome = await loaded.score([rows[at] for at in chosen], {"probabilities": True}, None)
        assert [row[1] for row in outcome.predictions] == pytest.approx([wanted[at] for at in chosen])
    await loaded.stop(1.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "model.joblib is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"no pickle at all", "no complete file of joblib or pickle"),
        (dumped(LABELS)[:-40], "model.joblib"),
    ],
)
async def test_a_wrong_file_is_told_as_what_it_is(tmp_path, content, says):
    assert says in await refusal(tmp_path, {"model.joblib": content})


async def test_a_function_of_the_training_script_is_told_as_such(tmp_path, monkeypatch):
    module: Any = types.ModuleType("__main__")
    exec("def days(table):\n    return table\n", module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, "__main__", module)
    from sklearn.preprocessing import FunctionTransformer

    content = pickle.dumps(FunctionTransformer(module.days))
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    text = await refusal(tmp_path, {"model.pkl": content})
    assert "'days' of the script that trained it" in text
    assert "into a module" in text


async def test_a_module_that_is_missing_is_named(tmp_path, monkeypatch):
    module: Any = types.ModuleType("not_here")
    exec("class Own:\n    def predict(self, t): return t\n", module.__dict__)  # noqa: S102
    module.Own.__module__ = "not_here"
    monkeypatch.setitem(sys.modules, "not_here", module)
    content = pickle.dumps(module.Own())
    monkeypatch.delitem(sys.modules, "not_here")
    assert "needs the module 'not_here'" in await refusal(tmp_path, {"model.pkl": content})


async def test_what_another_release_made_is_named_where_it_cannot_predict(tmp_path):
    from sklearn.impute import SimpleImputer

    imputer = SimpleImputer().fit(NUMBERS)
    state = imputer.__getstate__()
    del state["statistics_"]
    imputer.__dict__.clear()
    imputer.__dict__.update(state)
    content = pickle.dumps(imputer, protocol=2)
    import sklearn

    content = content.replace(sklearn.__version__.encode(), b"1.2.0"[: len(sklearn.__version__)])
    text = await refusal(tmp_path, {"model.pkl": content}, signature={"inputs": INPUTS})
    assert "made with scikit-learn 1.2.0" in text


PLAIN = "def load(folder):\n    return None\ndef predict(model, rows, parameters):\n    "


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return sum(row[0] for row in rows)", "a single"),
        ("return [[1.0] * 9, [2.0] * 9]", "2 predictions for 1 rows"),
        ("return {'class': ['a'], 'posterior': [0.5], 'x': [1]}", "class, posterior, x by name"),
        ("return [[1.0] * len(rows)] * len(rows)", "another shape when 2 rows"),
        ("async def later(): return [1]\n    return later()", "a single coroutine"),
        ("raise SystemExit(3)", "SystemExit"),
        ("return [next(iter(()))]", "StopIteration"),
    ],
)
async def test_an_answer_without_the_shape_of_one_stops_the_start(tmp_path, body, says):
    outputs = [{"name": "y", "datatype": "FP64"}]
    fields: dict[str, Any] = {"format": "python", "signature": {"inputs": INPUTS, "outputs": outputs}}
    assert says in await refusal(tmp_path, {"model.py": (PLAIN + body).encode()}, **fields)


async def test_without_samples_a_row_that_it_takes_is_sought(tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.DataFrame({"colour": ["red", "green"] * 30})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, LABELS)
    signature = {"inputs": [{"name": "colour", "datatype": "BYTES"}]}
    loaded = await started(tmp_path, {"m.joblib": dumped(model)}, signature=signature)
    assert loaded.workers.good == ["green"]
    await loaded.stop(1.0)
    code = PLAIN + "return [{'known': 1}[row[0]] for row in rows]"
    text = await refusal(tmp_path / "2", {"model.py": code.encode()}, format="python", signature=signature)
    assert "no row was found that this model can take" in text
    assert "--samples" in text


async def test_a_row_that_gets_no_prediction_is_no_good_row(tmp_path):
    code = "import numpy as np\n" + PLAIN
    more = {"format": "python", "signature": {"inputs": INPUTS}}
    sometimes = f"{code}return np.array([np.nan if row[0] == 0 else 2.0 for row in rows])"
    loaded = await started(tmp_path, {"model.py": sometimes.encode()}, **more)
    assert loaded.workers.good is not None
    assert loaded.workers.good[0] == 1.0
    await loaded.stop(1.0)
    never = f"{code}return np.array([[np.nan, np.inf] for row in rows])"
    assert "its answer is null" in await refusal(tmp_path / "2", {"model.py": never.encode()}, **more)


async def test_each_sample_is_scored(tmp_path):
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(NUMBERS, LABELS)
    samples = [
        {"request": {"instances": [[5.0, 0.0]]}, "response": {"predictions": [1]}},
        {"request": {"instances": [[5.0, 0.0]]}, "response": {"predictions": [0]}},
    ]
    text = await refusal(tmp_path, {"m.joblib": dumped(model)}, signature={"inputs": INPUTS}, samples=samples)
    assert "sample 1 came out differently" in text


async def test_a_model_that_draws_lots_is_told_from_other_packages(tmp_path):
    # Numbers in their turn, so that no two are the same by chance.
    code = (
        "import itertools\nturns = itertools.count()\n" + PLAIN + "return [float(next(turns)) for _ in rows]"
    )
    samples = [{"request": {"instances": [[5.0, 0.0]]}, "response": {"predictions": [-1.0]}}]
    more = {"format": "python", "signature": {"inputs": INPUTS}, "samples": samples}
    text = await refusal(tmp_path, {"model.py": code.encode()}, **more)
    assert "something else for the same rows each time" in text
    assert "packages" not in text


def test_without_a_signature_the_model_says_what_goes_in(tmp_path):
    from sklearn.linear_model import LogisticRegression

    artifact = write_artifact(tmp_path / "a", {"m.joblib": dumped(LogisticRegression().fit(NUMBERS, LABELS))})
    with running({"CHIPS_ARTIFACT": str(artifact)}) as backend:
        described = backend.get("/v2/models/test").json
        assert [tensor["name"] for tensor in described["inputs"]] == ["x0", "x1"]
        assert described["parameters"]["accepts"] == ["classes", "probabilities"]
        assert described["parameters"]["classes"] == [0, 1]
        answer = backend.post("/predict", {"instances": [[1.0, 2.0], ["high", 2.0]]})
        assert (answer.status, answer.json["detail"]) == (
            422,
            'instances[1][0]: expected a number, got "high"',
        )
        answer = backend.post("/predict", {"instances": [[1.0, 2.0], {"x0": None, "x1": 1}]})
        assert (answer.status, answer.json["detail"]) == (422, "instances[1].x0: the model cannot take null")


@pytest.mark.slow
def test_live_answers_while_a_large_body_is_parsed(tmp_path, write_model):
    """No single step of a large body keeps the event loop: `python -m benchmarks.large_body` says for how long at most."""
    artifact = write_model(tmp_path / "a")
    body = json.dumps(
        {"instances": [[round(x, 9), 1] for x in np.random.default_rng(1).normal(size=900_000)]}
    ).encode()
    assert len(body) > 15_000_000
    with running({"CHIPS_ARTIFACT": str(artifact)}) as backend:
        asked = threading.Thread(target=lambda: backend.post("/predict", body, {"X-Request-Id": "large"}))
        asked.start()
        answered = 0
        while asked.is_alive():
            assert backend.get("/v2/health/live").status == 200
            answered += 1
        asked.join()
        line = backend.wait_for(lambda line: line.get("request_id") == "large")
        assert line["httpRequest"]["status"] == 200
        assert answered >= 3, "health was asked again and again meanwhile"
