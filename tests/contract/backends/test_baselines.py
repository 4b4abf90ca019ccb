"""`baseline.json`: Python, R and Julia write the same statistics of the same training data, and the gateway reads each."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chips_backend import save
from chips_backend.baseline import sketch_of
from msgspec import UNSET
from sklearn.dummy import DummyRegressor

from gateway.artifacts.read_baseline_statistics import Baseline, ColumnStatistics, parse_baseline
from tests.conftest import require
from tests.contract.backends.languages import Julia, run_r

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a Julia compiles its program at each start

R = """
found <- read.csv(commandArgs(TRUE)[[1]], colClasses = c("numeric", "integer", "character", "logical"))
found$y <- rowSums(cbind(found$x, found$n), na.rm = TRUE)
model <- lm(y ~ x + n + plan + flag, found)
chips_save(model, commandArgs(TRUE)[[2]], head(found, 50), training = found, backend = commandArgs(TRUE)[[3]])
"""
JULIA = """
using ChipsBackend
rows = [split(line, ',') for line in readlines(ARGS[1])[2:end]]
parsed(type, text) = isempty(text) ? missing : parse(type, text)
table = (
    x = [parsed(Float64, row[1]) for row in rows], n = [parsed(Int, row[2]) for row in rows],
    plan = [String(row[3]) for row in rows], flag = [row[4] == "TRUE" for row in rows],
)
write("predict.jl", "predict(model, rows, parameters) = 2.0 .* rows.x")
save_model((a = 1,), ARGS[2], example = map(column -> column[1:50], table), training = table, predict = "predict.jl")
"""


@pytest.fixture(scope="module")
def training() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    size = 12_345
    x = np.where(rng.random(size) < 0.5, rng.lognormal(0, 9, size), rng.normal(0, 1, size))
    x[::100] = 0.0
    x[7::50] = np.nan
    return pd.DataFrame({
        "x": x,
        "n": rng.integers(-30, 300, size),
        "plan": np.where(np.arange(size) < 9, "rare", rng.choice(["basic", "plus", "ünï"], size)),
        "flag": rng.random(size) < 0.25,
    })  # fmt: skip


@pytest.fixture(scope="module")
def by_python(training: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("python")
    model = DummyRegressor().fit(training, training["n"])
    save(model, folder, example=training.head(50), training=training, format="joblib", out=io.StringIO())
    return (folder / "baseline.json").read_bytes()


def write_csv(training: pd.DataFrame, path: Path) -> str:
    training.assign(flag=training["flag"].map({True: "TRUE", False: "FALSE"})).to_csv(path, index=False)
    return str(path)


def described(column: ColumnStatistics) -> Mapping[str, Any]:
    facts: dict[str, Any] = {"count": column.count, "missing": column.missing}
    if column.quantiles is UNSET:
        return facts | {"frequent": column.frequent, "other": column.other}
    quantiles = column.quantiles
    return facts | {"zero": quantiles.zero, "negative": quantiles.negative, "positive": quantiles.positive}


def assert_same(content: bytes, other: bytes) -> None:
    found, wanted = parse_baseline(content), parse_baseline(other)
    assert (found.rows, found.least_count) == (wanted.rows, wanted.least_count)
    assert list(found.inputs) == list(wanted.inputs)
    for name, column in wanted.inputs.items():
        assert described(found.inputs[name]) == described(column), name
    prediction = found.outputs["prediction"]
    assert prediction.count + prediction.missing == wanted_predictions(wanted)
    merged = sketch_of(json.loads(content)["inputs"]["x"]["quantiles"])
    merged.merge(sketch_of(json.loads(other)["inputs"]["x"]["quantiles"]))
    assert merged.count == 2 * wanted.inputs["x"].count
    assert merged.described()["gamma"] == pytest.approx(
        json.loads(content)["inputs"]["x"]["quantiles"]["gamma"]
    )


def wanted_predictions(baseline: Baseline) -> int:
    prediction = baseline.outputs["prediction"]
    return prediction.count + prediction.missing


def test_r_writes_what_python_writes(training: pd.DataFrame, by_python: bytes, tmp_path: Path):
    require("r", available=shutil.which("Rscript") is not None, why="Rscript is not installed")
    home = Path(__file__).parents[3] / "backends/r"
    run_r(R, write_csv(training, tmp_path / "training.csv"), str(tmp_path / "trained"), str(home))
    assert_same((tmp_path / "trained/baseline.json").read_bytes(), by_python)


def test_julia_writes_what_python_writes(
    training: pd.DataFrame, by_python: bytes, tmp_path: Path, julia: Julia
):
    code = f'cd("{tmp_path}")\n{JULIA}'
    julia.run("-e", code, "--", write_csv(training, tmp_path / "training.csv"), str(tmp_path / "trained"))
    assert_same((tmp_path / "trained/baseline.json").read_bytes(), by_python)
