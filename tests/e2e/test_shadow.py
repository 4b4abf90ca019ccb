"""A shadow with real processes: a gateway of two workers, three backends, and `chips` at a shell."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_workers import Running
from tests.patience import patience

_CALLS = 400


def serve(predict: Any) -> ThreadingHTTPServer:
    """A backend that answers with `predict(instances)`."""

    class Backend(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"predictions": predict(body["instances"])}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def backends() -> Iterator[dict[str, str]]:
    numbers = count()

    def wrong_in_a_third(rows: list[list[float]]) -> list[float]:
        return [row[0] + (0.5 if row[0] % 3 == 0 else 0.0) for row in rows]

    servers = {
        "good": serve(lambda rows: [row[0] for row in rows]),
        "wrong": serve(wrong_in_a_third),
        "noisy": serve(lambda rows: [row[0] + next(numbers) for row in rows]),
    }
    try:
        yield {name: f"http://127.0.0.1:{server.server_address[1]}" for name, server in servers.items()}
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()


class Shop:
    """A gateway, its models, and callers."""

    def __init__(self, folder: Path, backends: dict[str, str]) -> None:
        self._environ = {
            **os.environ,
            "CHIPS_REGISTRY": f"sqlite://{folder}/registry.db",
            "PYTHONPATH": str(Path.cwd()),
        }
        for model, versions in {
            "sure": ("good", "good"),
            "changed": ("good", "wrong"),
            "noisy": ("noisy", "noisy"),
        }.items():
            for number, name in enumerate(versions, 1):
                self.chips(
                    "register",
                    model,
                    f"{backends[name]}/{number}",
                    "--no-probe",
                    "--force",
                    "--version",
                    str(number),
                    "--pure",
                )
        self.key = self.chips("keys", "create", "shop").strip()
        self.running = Running(folder, "--server.workers=2")
        told = self.running.wait_for(r"listens on http://127\.0\.0\.1:(\d+)")
        self.address = told.partition("listens on ")[2].partition(" ")[0]

    def chips(self, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            env=self._environ,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def begin(self, model: str) -> None:
        self.chips(
            *("shadow", model, "2", "--percent", "100", "--noise", "100", "--max-rate", "10000", "--yes"),
            *("--max-concurrency", "8", "--gateway", self.address, "--json"),
        )

    def call(self, model: str, number: int) -> float:
        request = urllib.request.Request(
            f"{self.address}/{model}",
            data=json.dumps({"instances": [[float(number)]]}).encode(),
            headers={
                "X-Api-Key": self.key,
                "Content-Type": "application/json",
                "X-Request-Id": f"{model}-{number}",
            },
        )
        with urllib.request.urlopen(request, timeout=patience(20)) as answer:
            assert answer.headers["X-Chips-Model"] == f"{model}@1"
            (prediction,) = json.load(answer)["predictions"]
            return float(prediction)

    def found(self, model: str, compared: int) -> dict[str, Any]:
        """What is reported, once so many answers were compared by both workers."""
        give_up_at = time.monotonic() + patience(60)
        while True:
            found: dict[str, Any] = json.loads(self.chips("shadow", model, "--status", "--json"))
            if found["compared"] + sum(found["dropped"].values()) >= compared:
                return found
            assert time.monotonic() < give_up_at, found

    def close(self) -> None:
        self.running.close()


@pytest.fixture
def shop(tmp_path: Path, backends: dict[str, str]) -> Iterator[Shop]:
    shop = Shop(tmp_path, backends)
    try:
        yield shop
    finally:
        shop.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_good_changed_and_noisy_models_get_the_verdicts_that_they_deserve(shop: Shop):
    models = ("sure", "changed", "noisy")
    for model in models:
        shop.begin(model)
        # It begins in each worker as soon as the process that compares runs there.
        give_up_at = time.monotonic() + patience(30)
        while json.loads(shop.chips("shadow", model, "--status", "--json"))["gateways"] < 2:
            assert time.monotonic() < give_up_at
    with ThreadPoolExecutor(4) as callers:
        for model in models:
            answers = list(callers.map(lambda number, model=model: shop.call(model, number), range(_CALLS)))
            if model != "noisy":
                assert answers == [float(number) for number in range(_CALLS)], (
                    "callers get version 1's answers"
                )
    found = {model: shop.found(model, _CALLS) for model in models}
    assert {model: one["sampled"] for model, one in found.items()} == dict.fromkeys(models, _CALLS)
    assert found["sure"]["finding"] in {"agrees", "undecided"}  # as many as were compared on a busy machine
    assert found["sure"]["agreement"]["seen"] == 1.0
    assert found["changed"]["finding"] == "differs"
    assert found["changed"]["stable_agreement_with_itself"]["seen"] == 1.0
    assert found["changed"]["outputs"]["predictions"]["candidate"]["largest_difference"] == 0.5
    worst = found["changed"]["worst"]
    assert len(worst) == 20
    assert {int(one["request_id"].partition("-")[2]) % 3 for one in worst} == {0}
    assert worst[0]["differences"] == [{"path": "predictions[0]", "what": "number", "amount": 0.5}]
    assert found["noisy"]["finding"] == "undecided", "it differs from itself as much"
    assert found["noisy"]["agreement"]["seen"] < 0.1
    assert found["noisy"]["stable_agreement_with_itself"]["seen"] < 0.1
    out = shop.chips("shadow", "changed", "--stop")
    assert "differs" in out
