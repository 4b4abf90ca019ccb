"""Models that MLflow, vetiver and transformers saved themselves: imported by one command, deployed, and scored as they score.

Each package is installed from PyPI, in an environment of its own, so these run only where they are named:
CHIPS_TESTS_REQUIRE=mlflow-models,vetiver,transformers.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from chips_backend.predictions_as_json import is_close

from tests.patience import patience

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
_REQUIRED = os.environ.get("CHIPS_TESTS_REQUIRE", "").split(",")
PACKAGES = {
    "mlflow-models": ("mlflow", "xgboost-cpu", "lightgbm", "onnx", "onnxruntime", "skl2onnx"),
    "vetiver": ("vetiver",),
    "transformers": ("transformers", "torch"),
}
MLFLOW = """
import json, sys
import mlflow, numpy as np, pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

mlflow.set_tracking_uri("sqlite:///mlflow.db")
frame = pd.DataFrame({"age": [20, 30, 40, 50] * 10, "income": [1.5, 2.5, 3.5, 4.5] * 10, "plan": ["a", "b", "a", "c"] * 10})
numbers, target = frame[["age", "income"]], [0, 1, 0, 1] * 10


class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["income"] * 2


def sklearn():
    prepare = make_column_transformer((OneHotEncoder(), ["plan"]), remainder="passthrough")
    model = make_pipeline(prepare, LogisticRegression(max_iter=500)).fit(frame, target)
    with mlflow.start_run():
        mlflow.sklearn.log_model(model, name="sk", input_example=frame.head(3), registered_model_name="sk")
    return "models:/sk/1", frame


def xgboost():
    from xgboost import XGBClassifier
    mlflow.xgboost.save_model(XGBClassifier(n_estimators=3).fit(numbers, target), "saved", input_example=numbers.head(3))
    return "saved", numbers


def lightgbm():
    from lightgbm import LGBMRegressor
    model = LGBMRegressor(n_estimators=3, min_child_samples=2, verbose=-1).fit(numbers, target)
    mlflow.lightgbm.save_model(model, "saved", input_example=numbers.head(3))
    return "saved", numbers


def onnx():
    import skl2onnx
    x = numbers.to_numpy(dtype=np.float32)
    model = skl2onnx.to_onnx(LogisticRegression().fit(x, target), x[:1], options={"zipmap": False})
    mlflow.onnx.save_model(model, "saved", input_example=x[:3], signature=mlflow.models.infer_signature(x))
    return "saved", x


def pyfunc():
    mlflow.pyfunc.save_model("saved", python_model=Doubles(), input_example=numbers.head(3))
    return "saved", numbers


place, rows = globals()[sys.argv[1]]()
answers = mlflow.pyfunc.load_model(place).predict(rows)
if isinstance(answers, dict):
    answers = answers["label"]
rows = rows.to_dict(orient="records") if hasattr(rows, "to_dict") else rows.tolist()
print("MADE", json.dumps({"place": place, "rows": rows[:4], "answers": np.asarray(answers).ravel().tolist()[:4]}))
"""
VETIVER = """
import json
import pandas as pd, pins, vetiver
from sklearn.linear_model import LinearRegression

frame = pd.DataFrame({"age": [20, 30, 40, 60], "income": [1.5, 2.5, 3.7, 2.0]})
model = LinearRegression().fit(frame, [1, 2, 3.5, 2])
board = pins.board_folder("pins", allow_pickle_read=True, versioned=True)
vetiver.vetiver_pin_write(board, vetiver.VetiverModel(model, "prices", prototype_data=frame))
print("MADE", json.dumps({"place": "pins/prices", "rows": frame.to_dict(orient="records"), "answers": model.predict(frame).tolist()}))
"""
TRANSFORMERS = """
import json, sys
from pathlib import Path
import torch, transformers
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

torch.manual_seed(0)
folder = Path("saved")
folder.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is", "good", "bad", "i", "do", "not", "like", "it", "."]
(folder / "vocab.txt").write_text("\\n".join(words))
BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                    max_position_embeddings=32, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
classifies = sys.argv[1] == "text-classification"
(BertForSequenceClassification if classifies else BertModel)(config).save_pretrained(folder)
pipe = transformers.pipeline(sys.argv[1], model=str(folder), device=-1)
texts = ["this is good .", "i do not like it", "bad"]
answers = [pipe(text)[0]["label"] if classifies else pipe(text)[0] for text in texts]
print("MADE", json.dumps({"place": "saved", "rows": [{"text": text} for text in texts], "answers": answers}))
"""
CASES = [
    *(
        ("mlflow-models", "mlflow", MLFLOW, flavor)
        for flavor in ("sklearn", "xgboost", "lightgbm", "onnx", "pyfunc")
    ),
    ("vetiver", "vetiver", VETIVER, ""),
    *(("transformers", "hf", TRANSFORMERS, task) for task in ("text-classification", "feature-extraction")),
]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Interpreters that were made for a package, by its name: the package is theirs, CHIPS is that of these tests."""
    return {}


def python_with(package: str, made: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    if package not in made:
        folder = tmp_path_factory.mktemp(package) / "environment"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        uv = shutil.which("uv")
        python = str(folder / "bin/python")
        installer = (
            [uv, "pip", "install", "--quiet", "--python", python]
            if uv
            else [python, "-m", "pip", "install", "--quiet"]
        )
        subprocess.run([*installer, *PACKAGES[package]], check=True, timeout=1500)
        # Behind its own packages those of these tests, which have CHIPS.
        site = next((folder / "lib").glob("python*/site-packages"))
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (site / "chips-of-the-tests.pth").write_text(
            "\n".join([*ours, str(ROOT), str(ROOT / "backends/python")])
        )
        made[package] = python
    return made[package]


@pytest.mark.parametrize(
    ("package", "scheme", "script", "kind"), CASES, ids=[f"{case[1]}-{case[3]}" for case in CASES]
)
def test_one_command_imports_it_and_it_answers_as_it_did(
    package: str, scheme: str, script: str, kind: str,
    environments: dict[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
):  # fmt: skip
    if package not in _REQUIRED:
        pytest.skip(f"{package}: installed from PyPI only where CHIPS_TESTS_REQUIRE names it")
    python = python_with(package, environments, tmp_path_factory)
    environ = {
        **{name: os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE") if name in os.environ},
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "MPLBACKEND": "agg",
        "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "HF_HUB_OFFLINE": "1", "CHIPS_REGISTRY": f"sqlite://{tmp_path}/registry.db",
    }  # fmt: skip

    def run(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience(300),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    made = json.loads(run(python, "-c", script, *filter(None, [kind])).rsplit("MADE ", 1)[1])
    run(python, "-m", "gateway.cli", "import-model", f"{scheme}:{made['place']}", "--name", "imported")
    assert json.loads((tmp_path / "models/imported/trained/samples.json").read_text())
    try:
        deployed = json.loads(
            run(python, "-m", "gateway.cli", "deploy", "models/imported", "--target", "local", "--json")
        )
        found = predictions(deployed["url"], made["rows"])
        assert len(found) == len(made["answers"])
        for got, wanted in zip(found, made["answers"], strict=True):
            assert is_close(got, wanted, 1e-5), (got, wanted)
    finally:
        subprocess.run(
            [python, "-m", "gateway.cli", "undeploy", "imported", "--version", "1", "--target", "local", "--force"],
            cwd=tmp_path, env=environ, check=False, capture_output=True,
        )  # fmt: skip


def predictions(url: str, rows: list[Any]) -> Any:
    request = urllib.request.Request(
        f"{url}/predict", json.dumps({"instances": rows}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=patience(60)) as answer:
        found = json.load(answer)["predictions"]
    # An ONNX classifier of MLflow answers by output.
    return [one["label"] if isinstance(one, dict) else one for one in found]
