"""The model.py that `chips import-model hf:…` writes, with a pipeline that answers as transformers' own does."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TEMPLATE = Path(__file__).parents[3] / "gateway/cli/scaffold/import_templates/huggingface.py"


def imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scores: dict[str, float], **config: object
) -> Any:
    """model.py next to a config.json; its pipeline gives `scores` to each text."""
    transformers = ModuleType("transformers")
    answer = [{"label": label, "score": score} for label, score in scores.items()]
    transformers.pipeline = lambda task, **_: lambda text, **_: answer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    (folder / "huggingface").mkdir()
    architectures = ["BertForSequenceClassification"]
    (folder / "huggingface/config.json").write_text(json.dumps({"architectures": architectures, **config}))
    shutil.copy(TEMPLATE, folder / "model.py")
    spec = importlib.util.spec_from_file_location("imported_huggingface_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_labels_without_names_are_not_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = imported(tmp_path, monkeypatch, {"LABEL_1": 0.9, "LABEL_0": 0.1})
    assert model.CLASSES == ["LABEL_0", "LABEL_1"]
    assert model.predict(model.load(tmp_path), [["a"]], {}) == ["LABEL_1"]
    assert model.predict(model.load(tmp_path), [["a"]], {"probabilities": True}) == [[0.1, 0.9]]


def test_a_model_that_measures_answers_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = imported(tmp_path, monkeypatch, {"LABEL_0": 3.7}, id2label={"0": "LABEL_0"})
    assert not hasattr(model, "PARAMETERS")
    assert model.predict(model.load(tmp_path), [["a"], ["b"]], {}) == [3.7, 3.7]


def test_a_model_that_measures_two_things_answers_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    labels = {"0": "warm", "1": "loud"}
    model = imported(
        tmp_path, monkeypatch, {"loud": 2.0, "warm": -1.0}, id2label=labels, problem_type="regression"
    )
    assert model.predict(model.load(tmp_path), [["a"]], {}) == [[-1.0, 2.0]]


def test_a_text_may_have_several_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = imported(
        tmp_path, monkeypatch, {"rude": 0.9, "spam": 0.8, "fine": 0.1},
        id2label={"0": "spam", "1": "rude", "2": "fine"}, problem_type="multi_label_classification",
    )  # fmt: skip
    assert model.predict(model.load(tmp_path), [["a"]], {}) == [["spam", "rude"]]
    assert model.predict(model.load(tmp_path), [["a"]], {"probabilities": True}) == [[0.8, 0.9, 0.1]]


def test_labels_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="id2label"):
        imported(tmp_path, monkeypatch, {"a": 1.0}, id2label={"0": "a", "1": "a"})
