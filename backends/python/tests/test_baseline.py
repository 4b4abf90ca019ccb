"""`baseline.json`: mergeable figures of the training data, and nothing that points to a single row."""

import io
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from chips_backend import CannotSave, save
from chips_backend.baseline import ACCURACY, LEAST_COUNT, Baseline, Sketch, sketch_of
from chips_backend.example_columns import columns_of
from ddsketch import LogCollapsingLowestDenseDDSketch
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression

RNG = np.random.default_rng(11)
SAMPLES = {
    "lognormal": RNG.lognormal(3, 2, 5000),
    "normal": RNG.normal(0, 1, 5000),
    "integers": RNG.integers(-20, 20, 5000).astype(float),
    "huge and tiny": np.r_[10.0 ** RNG.uniform(-300, 300, 500), 0.0, 5e-324],
    "constant": np.full(100, 3.25),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_bins_are_those_of_the_reference_library(name):
    values = SAMPLES[name]
    reference = LogCollapsingLowestDenseDDSketch(ACCURACY, bin_limit=10**6)
    for value in values:
        reference.add(float(value))
    ours = Sketch()
    ours.add(values, most_bins=10**6)
    assert ours.gamma == pytest.approx(reference._mapping.gamma)
    assert ours.zero == reference._zero_count
    for positive, store in ((True, reference._store), (False, reference._negative_store)):
        bins = {at + store.offset: int(count) for at, count in enumerate(store.bins) if count}
        assert ours.bins[positive] == bins


@pytest.mark.parametrize("most_bins", [10**6, 256, 32])
@pytest.mark.parametrize("name", SAMPLES)
def test_quantiles_are_as_near_as_gamma_says(name, most_bins):
    values = SAMPLES[name]
    sketch = Sketch()
    sketch.add(values, most_bins)
    bound = (sketch.gamma - 1) / (sketch.gamma + 1)
    for share in (0, 0.01, 0.25, 0.5, 0.75, 0.99, 1):
        exact = np.quantile(values, share, method="lower")
        assert sketch.quantile(share) == pytest.approx(exact, rel=bound + 1e-9, abs=1e-307)
    assert sum(map(len, sketch.bins.values())) <= max(most_bins, 2)


@pytest.mark.parametrize("name", SAMPLES)
def test_parts_merge_to_the_whole_whatever_their_gamma(name):
    values = SAMPLES[name]
    whole, first, second = Sketch(), Sketch(), Sketch()
    whole.add(values, 10**6)
    first.add(values[::2], 64)
    second.add(values[1::2], 10**6)
    merged = sketch_of(json.loads(json.dumps(first.described())))
    merged.merge(sketch_of(json.loads(json.dumps(second.described()))))
    while whole.joined < merged.joined:
        whole.join()
    assert merged.described() == whole.described()
    assert merged.count == len(values)


def frame():
    rng = np.random.default_rng(12)
    return pd.DataFrame({
        "income": [*rng.lognormal(10, 1, 199), np.nan],
        "children": pd.array([*rng.integers(0, 5, 199), None], dtype="Int64"),
        "plan": ["basic"] * 120 + ["pro"] * 75 + ["founder"] * 5,
        "email": [f"person{at}@example.com" for at in range(200)],
        "active": [True] * 150 + [False] * 50,
        "scores": [[1.0, 2.0]] * 199 + [None],
    })  # fmt: skip


def test_what_is_rare_is_not_named():
    baseline = Baseline()
    baseline.add_inputs(columns_of(frame(), None))
    described = baseline.described()
    inputs = described["inputs"]
    assert described["rows"] == 200
    assert described["least_count"] == LEAST_COUNT
    assert inputs["plan"]["frequent"] == {"basic": 120, "pro": 75}
    assert inputs["plan"]["other"] == 5
    assert inputs["email"] == {"datatype": "BYTES", "count": 200, "missing": 0, "frequent": {}, "other": 200}
    assert inputs["active"]["frequent"] == {"true": 150, "false": 50}
    assert "founder" not in json.dumps(described)
    assert "person" not in json.dumps(described)
    for name in ("income", "children", "scores"):
        assert (inputs[name]["count"], inputs[name]["missing"]) == (199, 1)
    assert sketch_of(inputs["scores"]["quantiles"]).count == 398
    assert len(json.dumps(described)) < 10_000


@pytest.mark.parametrize("form", ["pandas", "polars", "numpy"])
def test_save_writes_it_over_all_of_the_training_data(form, tmp_path):
    rng = np.random.default_rng(13)
    x = pd.DataFrame({"a": rng.normal(size=20_500), "b": rng.integers(0, 9, 20_500).astype(float)})
    model = LinearRegression().fit(x.to_numpy(), x["a"] * 2)
    training = {"pandas": x, "polars": pl.DataFrame({"a": x["a"], "b": x["b"]}), "numpy": x.to_numpy()}[form]
    if form != "numpy":
        model = LinearRegression().fit(x, x["a"] * 2)
    out = io.StringIO()
    save(model, tmp_path, example=training[:20], training=training, out=out)
    found = json.loads((tmp_path / "baseline.json").read_text())
    (first, *_) = found["inputs"]
    assert found["rows"] == found["inputs"][first]["count"] == 20_500
    assert sketch_of(found["inputs"][first]["quantiles"]).quantile(0.9) == pytest.approx(1.28, rel=0.15)
    assert 5_000 < found["outputs"]["prediction"]["count"] <= 10_000
    assert sketch_of(found["outputs"]["prediction"]["quantiles"]).quantile(0.9) == pytest.approx(
        2.56, rel=0.15
    )
    assert "baseline.json" in out.getvalue()


def test_a_column_may_be_missing_in_a_whole_part_of_the_training_data(tmp_path, monkeypatch):
    monkeypatch.setattr("chips_backend.saving._CELLS_AT_ONCE", 10)
    x = pd.DataFrame({"plan": ["a", "b"] * 10 + [None] * 20})
    model = DummyClassifier().fit(x, [0, 1] * 20)
    save(model, tmp_path, example=x.head(20), training=x, out=io.StringIO())
    found = json.loads((tmp_path / "baseline.json").read_text())["inputs"]["plan"]
    assert (found["count"], found["missing"], found["frequent"]) == (20, 20, {"a": 10, "b": 10})


def test_training_data_of_other_columns_is_refused(tmp_path):
    x = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0]})
    with pytest.raises(CannotSave, match="different columns"):
        save(
            LinearRegression().fit(x, x["a"]), tmp_path, example=x, training=x[["b", "a"]], out=io.StringIO()
        )
    assert not list(tmp_path.iterdir())


def test_an_earlier_baseline_does_not_stay_with_another_model(tmp_path):
    x = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    model = LinearRegression().fit(x, x["a"])
    save(model, tmp_path, example=x, training=x, out=io.StringIO())
    save(model, tmp_path, example=x, overwrite=True, out=io.StringIO())
    assert not (tmp_path / "baseline.json").exists()


def test_wide_training_data_stays_small():
    x = np.random.default_rng(14).normal(size=(300, 5000))
    baseline = Baseline()
    baseline.add_inputs(columns_of(x, None))
    assert len(json.dumps(baseline.described())) < 5_000 * 1_000
