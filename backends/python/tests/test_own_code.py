"""`save` takes along the author's own code: modules next to a script, and what the script or notebook defines itself."""

import io
import json
import subprocess
import sys
import textwrap

import pandas as pd
import pytest
from chips_backend import CannotSave, save
from chips_backend.testing import running, write_artifact

TRAIN = """
import sys
import numpy as np
import pandas as pd
from chips_backend import save
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
{code}
frame = pd.DataFrame({{"when": pd.to_datetime(["2026-01-01", "2026-02-03", "2026-03-05", "2026-04-01"]), "x": [1.0, 2.0, 4.0, 8.0]}})
model = make_pipeline({steps}, LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 5.0])
save(model, "trained", example=frame)
print("SAVED", model.predict(frame).tolist())
"""
FUNCTION = """
EPOCH = "2025-12-31"

def since(column):
    return (pd.to_datetime(column) - pd.Timestamp(EPOCH)).dt.days

def days(frame):
    return np.c_[since(frame["when"]), frame["x"]]
"""
CLASS = """
class Base(BaseEstimator):
    def fit(self, frame, y=None):
        self.start_ = frame["x"].min()
        return self

class Shifted(TransformerMixin, Base):
    "Rows relative to the smallest x of training."
    def transform(self, frame):
        return np.c_[frame["x"] - self.start_, frame["x"] ** 2]
"""


def train(folder, code, steps, modules=None):
    """Run a training script as its author would; return what it printed."""
    for name, source in (modules or {}).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
    (folder / "train.py").write_text(TRAIN.format(code=code, steps=steps))
    return subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, check=False
    )


def serve_and_compare(folder, done):
    """The saved folder, served where none of the author's modules are to be found, predicts as the script did."""
    assert done.returncode == 0, done.stderr
    wanted = json.loads(done.stdout.rsplit("SAVED ", 1)[1])
    trained = folder / "trained"
    kept = {"signature.json", "samples.json"}
    files = {
        path.relative_to(trained).as_posix(): path.read_bytes()
        for path in trained.rglob("*")
        if path.is_file() and path.name not in kept
    }
    artifact = write_artifact(
        folder / "elsewhere/artifact",
        files,
        signature=json.loads((trained / "signature.json").read_text()),
        samples=json.loads((trained / "samples.json").read_text()),
    )
    with running({"CHIPS_ARTIFACT": str(artifact)}) as backend:
        instances = [
            {"when": when, "x": x}
            for when, x in zip(
                ("2026-01-01", "2026-02-03", "2026-03-05", "2026-04-01"), (1, 2, 4, 8), strict=True
            )
        ]
        answer = backend.post("/predict", {"instances": instances})
    assert answer.status == 200, answer.body
    assert answer.json["predictions"] == pytest.approx(wanted)
    return sorted(files)


@pytest.mark.slow
def test_functions_of_a_script(tmp_path):
    done = train(tmp_path, FUNCTION, "FunctionTransformer(days)")
    files = serve_and_compare(tmp_path, done)
    assert [name for name in files if name.startswith("own_code_")], files
    assert "own_code_" in done.stdout


@pytest.mark.slow
def test_classes_of_a_script_and_their_bases(tmp_path):
    serve_and_compare(tmp_path, train(tmp_path, CLASS, "Shifted()"))


@pytest.mark.slow
def test_modules_next_to_a_script_and_what_they_import(tmp_path):
    done = train(
        tmp_path,
        "from features import days",
        "FunctionTransformer(days)",
        {
            "features.py": """
                import numpy as np
                from helpers.dates import since

                def days(frame):
                    return np.c_[since(frame["when"]), frame["x"]]
            """,
            "helpers/__init__.py": "",
            "helpers/dates.py": """
                import pandas as pd
                from . import constants

                def since(column):
                    return (pd.to_datetime(column) - pd.Timestamp(constants.EPOCH)).dt.days
            """,
            "helpers/constants.py": "EPOCH = '2025-12-31'",
            "unrelated.py": "raise RuntimeError",
        },
    )
    files = serve_and_compare(tmp_path, done)
    assert files == [
        "card.md",
        "features.py",
        "helpers/__init__.py",
        "helpers/constants.py",
        "helpers/dates.py",
        "model.joblib",
    ]


@pytest.mark.parametrize(
    ("code", "steps", "why"),
    [
        ("table = pd.DataFrame({'x': [1.0]})\ndef days(frame):\n    return frame[['x']] + table['x'][0]", "FunctionTransformer(days)",
         "days uses the variable table of the script or notebook, a DataFrame"),
        ("days = lambda frame: frame[['x']]", "FunctionTransformer(days)", "A lambda"),
        ("exec('def days(frame): return frame[[\"x\"]]')", "FunctionTransformer(days)", "move it into a module"),
        ("from features import days", "FunctionTransformer(days)", "No such file"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_what_cannot_be_taken_along_is_named_with_what_to_do(code, steps, why, tmp_path):
    features = """
        from pathlib import Path

        def days(frame):
            return frame[["x"]] * float((Path(__file__).parent / "factor.txt").read_text())
    """
    (tmp_path / "factor.txt").write_text("2")
    done = train(tmp_path, code, steps, {"features.py": features})
    assert done.returncode
    assert "CannotSave" in done.stderr
    assert why in done.stderr
    assert not (tmp_path / "trained").exists()


@pytest.mark.slow
def test_a_second_save_leaves_no_code_of_the_first(tmp_path):
    assert train(tmp_path, FUNCTION, "FunctionTransformer(days)").returncode == 0
    (first,) = (tmp_path / "trained").glob("own_code_*.py")
    again = train(tmp_path, FUNCTION.replace("12-31", "12-30"), "FunctionTransformer(days)")
    assert "overwrite=True" in again.stderr
    assert first.exists()
    source = (tmp_path / "train.py").read_text().replace("example=frame", "example=frame, overwrite=True")
    (tmp_path / "train.py").write_text(source)
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, capture_output=True)
    (second,) = (tmp_path / "trained").glob("own_code_*.py")
    assert second.name != first.name


def test_a_module_of_another_content_is_not_replaced(tmp_path):
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained/features.py").write_text("# mine")
    done = train(
        tmp_path,
        "from features import days",
        "FunctionTransformer(days)",
        {"features.py": 'def days(frame):\n    return frame[["x"]]'},
    )
    assert "already has features.py" in done.stderr
    assert (tmp_path / "trained/features.py").read_text() == "# mine"


def test_a_compiled_module_is_refused(tmp_path, monkeypatch):
    import types

    compiled = types.ModuleType("fastmath")
    compiled.__file__ = str(tmp_path / "fastmath.so")

    class Fast:
        def predict(self, table):
            return [1.0] * len(table)

    Fast.__module__, Fast.__qualname__ = "fastmath", "Fast"
    vars(compiled)["Fast"] = Fast
    monkeypatch.setitem(sys.modules, "fastmath", compiled)
    with pytest.raises(CannotSave, match=r"fastmath, which is compiled .* requirements.txt"):
        save(Fast(), tmp_path / "trained", example=pd.DataFrame({"x": [1.0, 2.0]}), out=io.StringIO())
