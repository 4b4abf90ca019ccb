"""A Hugging Face model, served by a pipeline of transformers. Written by `chips import-model`."""

import json
from pathlib import Path

import transformers
from chips_backend.model import Refused

_CONFIG = json.loads((Path(__file__).parent / "huggingface/config.json").read_text())
_CLASSIFIES = any(name.endswith("ForSequenceClassification") for name in _CONFIG.get("architectures") or [])
if _CLASSIFIES:
    PARAMETERS = {"probabilities": bool, "classes": bool}
    CLASSES = [_CONFIG["id2label"][str(at)] for at in range(len(_CONFIG["id2label"]))]


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
        return [[scores[label] for label in CLASSES] for scores in found]
    return [max(scores, key=scores.get) for scores in found]
