"""One kind of model: how it was saved, what it is asked, and what the library itself says to that."""

import datetime
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

TEAL = "teal"
TOO_LARGE = 1e39


def listed(result: Any) -> Any:
    """A library's answer as JSON has it; written without a look at the backend's own code."""
    if hasattr(result, "to_dict") and hasattr(result, "columns"):
        return [{name: listed(value) for name, value in row.items()} for row in result.to_dict("records")]
    if hasattr(result, "toarray"):
        result = result.toarray()
    if hasattr(result, "tolist"):
        result = result.tolist()
    if isinstance(result, list | tuple):
        return [listed(item) for item in result]
    if isinstance(result, float):
        return result if math.isfinite(result) else None
    if isinstance(result, datetime.datetime):
        return result.isoformat() if result == result else None  # NaT
    return result


def rows_first(probabilities: Any) -> Any:
    if isinstance(probabilities, list):
        return [[listed(part[row]) for part in probabilities] for row in range(len(probabilities[0]))]
    return listed(probabilities)


class Specimen:
    def __init__(self, family, kind, model, *, table, inputs, rows, save, format="joblib", outputs=None,
                 predict=None, proba=None, classes=None, samples=True, note="", tolerance=1e-6, odd=True) -> None:  # fmt: skip
        self.family, self.kind, self.format, self.note = family, kind, format, note
        self.model, self.table, self.inputs, self.rows, self.save = model, table, inputs, rows, save
        self.outputs, self.samples, self.tolerance, self.odd = outputs or [], samples, tolerance, odd
        self.predict = predict or (lambda table: model.predict(table))
        has_proba = proba is None and hasattr(model, "predict_proba")
        self.proba = model.predict_proba if has_proba else proba or None
        self.classes = listed(getattr(model, "classes_", None)) if classes is None and has_proba else classes

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        file = self.save(folder)
        rows = self.rows
        facts = {
            "family": self.family, "kind": self.kind, "format": self.format, "file": file, "note": self.note,
            "signature": {"inputs": self.inputs, "outputs": self.outputs}, "rows": rows, "tolerance": self.tolerance,
            "alone": [self._answer([row])[0] for row in rows],
            "together": self._answer(rows),
            "probabilities": rows_first(self.proba(self.table(rows))) if self.proba else None,
            "classes": self.classes if self.proba else None,
            "samples": self.samples,
            "odd": self._odd() if self.odd else [],
        }  # fmt: skip
        (folder / "facts.json").write_text(json.dumps(facts, default=lambda value: value.item()))

    def _answer(self, rows: Any) -> Any:
        return listed(self.predict(self.table(rows)))

    def _odd(self) -> list[dict[str, Any]]:
        """Rows with one strange value, and what the library makes of each."""
        asked = []
        for at, tensor in enumerate(self.inputs):
            strange = [("null", None)]
            if tensor["datatype"] == "BYTES":
                strange.append(("unseen", TEAL))
            if tensor["datatype"] == "FP64":
                strange.append(("out_of_range", TOO_LARGE))
            for what, value in strange:
                row = [*self.rows[0][:at], value, *self.rows[0][at + 1 :]]
                asked.append({"what": what, "field": tensor["name"], "row": row, **self._outcome(row)})
        return asked

    def _outcome(self, row: Any) -> dict[str, Any]:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return {"value": self._answer([row])[0]}
        except Exception as error:  # noqa: BLE001  (that is the question)
            return {"raises": type(error).__name__}
