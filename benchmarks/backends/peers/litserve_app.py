"""LitServe, as its documentation serves a scikit-learn model."""

import os

import litserve
from shared import load


class Api(litserve.LitAPI):
    def setup(self, device):
        self.score = load()

    def decode_request(self, request):
        return request["instances"]

    def predict(self, rows):
        return self.score(rows)

    def encode_response(self, labels):
        return {"predictions": labels}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(
        port=int(os.environ["PORT"]),
        host="127.0.0.1",
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
    )
