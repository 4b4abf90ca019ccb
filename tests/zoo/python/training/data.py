"""The data that all kinds are trained on: small, with text, dates, categories and holes, and the rows that are asked later."""

import numpy as np
import pandas as pd

GENERATOR = np.random.default_rng(16)
COUNT = 160
NUMBERS = GENERATOR.normal(size=(COUNT, 3)).round(3)
TARGET = (NUMBERS @ np.array([1.0, -2.0, 0.5]) + GENERATOR.normal(scale=0.1, size=COUNT)).round(4)
POSITIVE = TARGET - TARGET.min() + 0.5
BINARY = (NUMBERS[:, 0] + NUMBERS[:, 1] > 0).astype(int)
LABELS = np.array(["red", "green", "blue"])[np.digitize(TARGET, [-1.0, 1.0])]
TARGETS = np.column_stack([TARGET, NUMBERS[:, 0] * 3])
MARKS = np.column_stack([NUMBERS[:, 0] > 0, NUMBERS[:, 1] > 0, NUMBERS[:, 2] > 0]).astype(int)
COUNTS = np.abs(NUMBERS * 3).round()

KINDS = ["red", "white", "ros\u00e9"]
FRAME = pd.DataFrame(
    {
        "kind": GENERATOR.choice(KINDS, COUNT),
        "mean age": GENERATOR.integers(1, 9, COUNT),
        "size": NUMBERS[:, 0],
        "ok": GENERATOR.random(COUNT) > 0.5,
        "when": [f"2026-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in range(COUNT)],
    }
)
HOLES = FRAME.copy()
HOLES.loc[::7, "kind"] = None
HOLES.loc[::5, "size"] = np.nan
DATATYPES = {"kind": "BYTES", "mean age": "INT64", "size": "FP64", "ok": "BOOL", "when": "BYTES"}

WORDS = [
    "good wine",
    "bad cheese",
    "very good bread",
    "no bread at all",
    "fine old wine",
    "cheap and bad wine",
]
TEXTS = [f"{GENERATOR.choice(WORDS)} {GENERATOR.choice(WORDS)}" for _ in range(COUNT)]
TEXT_LABELS = np.array(["good" if "good" in text else "other" for text in TEXTS])

ARRAY_INPUTS = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "abc"]
ARRAY_ROWS = NUMBERS[:9].tolist()


def array(rows):
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=float)


def inputs_of(columns, **categories):
    return [
        {"name": name, "datatype": DATATYPES[name], "shape": [-1]}
        | ({"categories": categories[name]} if name in categories else {})
        for name in columns
    ]


def rows_of(frame, count=9):
    """Rows as JSON has them."""
    return [
        [None if pd.isna(value) else getattr(value, "item", lambda value=value: value)() for value in row]
        for row in frame.head(count).itertuples(index=False, name=None)
    ]


def frame_of(columns, dtypes=None):
    """How a person would make the table of a request: the same columns and dtypes as in training."""

    def table(rows):
        frame = pd.DataFrame(rows, columns=list(columns))
        for name in columns:
            kind = DATATYPES.get(name, "FP64")
            if dtypes and name in dtypes:
                frame[name] = frame[name].astype(dtypes[name])
            elif kind == "INT64" and not frame[name].isna().any():
                frame[name] = frame[name].astype("int64")
            elif kind in {"FP64", "INT64"}:
                frame[name] = frame[name].astype("float64")
            elif kind == "BYTES":
                frame[name] = pd.Series([np.nan if v is None else v for v in frame[name]], dtype="str")
        return frame

    return table
