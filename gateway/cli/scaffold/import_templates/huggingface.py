"""Loads and serves an imported Hugging Face model. A pipeline of transformers runs it. Written by `chips import-model`."""

import json
from pathlib import Path

import transformers
from chips_backend.model import Refused

_CONFIG = json.loads((Path(__file__).parent / "huggingface/config.json").read_text(encoding="utf-8"))
_CLASSIFIES = any(name.endswith("ForSequenceClassification") for name in _CONFIG.get("architectures") or [])
# transformers does not write the names of labels that have none: two labels, where the file says nothing.
_NAMES = _CONFIG.get("id2label") or {str(at): f"LABEL_{at}" for at in range(_CONFIG.get("num_labels") or 2)}
_LABELS = [_NAMES[str(at)] for at in range(len(_NAMES))]
_PROBLEM = _CONFIG.get("problem_type")
_MEASURES = len(_LABELS) == 1 or _PROBLEM == "regression"
if _CLASSIFIES and not _MEASURES:
    if len(set(_LABELS)) < len(_LABELS):
        raise ValueError("two labels of the model have one name: give each its own under id2label in config.json")
    PARAMETERS = {"probabilities": bool, "classes": bool}
    CLASSES = _LABELS


def load(folder):
    task = "text-classification" if _CLASSIFIES else "feature-extraction"
    home = str(Path(folder) / "huggingface")
    return transformers.pipeline(task, model=home, tokenizer=home, device=-1)


def predict(model, rows, parameters):
    for at, (text,) in enumerate(rows):
        if text is None:
            raise Refused("the model needs a text", row=at, field=0)
    texts = [text for (text,) in rows]
    # A text at a time, as the pipeline does by itself: an answer does not depend on the others' length.
    if not _CLASSIFIES:
        return [model(text, truncation=True)[0] for text in texts]
    found = [{one["label"]: one["score"] for one in model(text, top_k=None, truncation=True)} for text in texts]
    if parameters.get("probabilities"):
        return [[scores[label] for label in _LABELS] for scores in found]
    return [_answer(scores) for scores in found]


def _answer(scores):
    """The label; the numbers of a model that measures; all labels that are likely, where a text may have several."""
    if _MEASURES:
        return scores[_LABELS[0]] if len(_LABELS) == 1 else [scores[label] for label in _LABELS]
    if _PROBLEM == "multi_label_classification":
        return [label for label in _LABELS if scores[label] > 0.5]
    return max(scores, key=scores.get)
