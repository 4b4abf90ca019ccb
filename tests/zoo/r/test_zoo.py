"""The zoo of R: what R predicts is what callers get, or they are told what is wrong."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.r.zoo import examine_all, train, write_results

# The part that CI runs: one kind of each way in which levels, packages or shapes differ. All with `make zoo`.
FAIR_PART = (
    "lm with factor(cyl) in the formula",
    "lm with natural splines",
    "lm with x - mean(x) in the formula",
    "lm with two responses (mlm)",
    "glm, binomial",
    "mgcv::gam with smooths by a factor and a random effect",
    "cv.glmnet, multinomial",
    "randomForest with factors",
    "randomForest with an ordered factor, categories published",
    "ranger with a factor, its defaults",
    "ranger with a factor, categories published",
    "rpart, classes",
    "e1071::svm with a factor",
    "e1071::naiveBayes with factors and texts",
    "nnet, two classes",
    "nnet::multinom",
    "MASS::lda",
    "survival::coxph",
    "arima",
    "kmeans",
)
WHOLE = "CHIPS_ZOO_RESULTS" in os.environ
RESULTS = Path(__file__).parents[1] / "results" / "r.json"


@pytest.mark.timeout(1800)
def test_every_kind_predicts_as_r_does_or_is_refused(has_r: None, tmp_path: Path):
    folders = train(tmp_path, *(() if WHOLE else FAIR_PART))
    assert len(folders) >= (90 if WHOLE else len(FAIR_PART))
    found = asyncio.run(examine_all(folders))
    if WHOLE:
        write_results(found, tmp_path / "made_with.json", RESULTS)
    wrong = "\n".join(_told(entry) for entry in found if entry["wrong"])
    assert not wrong, wrong


def _told(entry: dict[str, Any]) -> str:
    return "\n  ".join([entry["kind"], *entry["wrong"]])
