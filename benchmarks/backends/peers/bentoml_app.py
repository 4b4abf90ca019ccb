"""BentoML, as its documentation serves a scikit-learn model."""

from typing import Any

import bentoml
from shared import load


@bentoml.service(workers=1, traffic={"timeout": 60})
class Scores:
    def __init__(self) -> None:
        self.score = load()

    @bentoml.api
    def predict(self, instances: list[Any]) -> dict[str, Any]:
        return {"predictions": self.score(instances)}
