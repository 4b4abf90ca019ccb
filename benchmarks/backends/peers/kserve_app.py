"""KServe's own server in Python, with a model class as its documentation writes one."""

import os

import kserve
import numpy as np
from kserve.utils.utils import get_predict_response
from shared import KIND, load


class Scores(kserve.Model):
    def __init__(self) -> None:
        super().__init__("m")
        self.score = load()
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, dict):
            return {"predictions": self.score(payload["instances"])}
        if KIND == "mixed":
            labels = self.score(payload.as_dataframe())
        else:
            labels = self.score(payload.inputs[0].as_numpy())
        return get_predict_response(payload, np.array(labels), "m")


if __name__ == "__main__":
    kserve.ModelServer(http_port=int(os.environ["PORT"]), workers=1, enable_grpc=False).start([Scores()])
