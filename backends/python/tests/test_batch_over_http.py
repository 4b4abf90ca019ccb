"""Requests that share a call, as their callers see it."""

import io
import threading
from typing import Any

import aiohttp
import msgspec
import pytest
from chips_backend.app import App
from chips_backend.artifact import Artifact
from chips_backend.config import Config
from chips_backend.logs import Log
from chips_backend.manifest import parse_manifest
from chips_backend.model import Facts
from chips_backend.server import listen
from chips_backend.service import Loaded
from chips_backend.testing import manifest_of, running
from chips_backend.workers import Outcome, Workers


async def test_an_answer_says_how_many_shared_its_call(tmp_path):
    manifest = parse_manifest(
        msgspec.json.encode(
            manifest_of(
                {"model.py": b""}, signature={"inputs": [{"name": "x", "datatype": "FP64"}], "outputs": []}
            )
        )
    )
    shared = iter([1, 4])

    async def score(rows: Any, *_: Any) -> Outcome:
        return Outcome([0] * len(rows), 0.0, 0.0123, next(shared))

    app = App(Config(artifact=str(tmp_path)), Log(io.StringIO()))
    facts = Facts(manifest.signature, {})
    workers = Workers(1)
    app.become_ready(Loaded(Artifact(tmp_path, manifest, "", ""), workers, score, None, facts))
    runner = await listen(app, 0, stop_grace_s=1)
    try:
        said = []
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/predict"
                async with session.post(url, json={"instances": [[1]]}) as answer:
                    said.append(answer.headers["Server-Timing"].split(", ")[2])
        assert said == ["predict;dur=12.3", "predict;dur=12.3;shared=4"]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("environ", "target_ms"), [({"CHIPS_BATCH_TARGET_MS": "50"}, 50), ({}, None)])
def test_over_http(model, environ, target_ms):
    with running({"CHIPS_ARTIFACT": str(model), **environ}) as backend:
        assert backend.get("/v2/models/test").json["parameters"].get("batch_target_ms") == target_ms
        wrong: list[Any] = []

        def call(number: int) -> None:
            for turn in range(15):
                bad = (number + turn) % 5 == 0
                value = -1.0 if bad else number * 100.0 + turn
                answer = backend.post("/predict", {"instances": [[value, 0]]})
                if (answer.status, answer.json.get("predictions")) != (
                    (422, None) if bad else (200, [value])
                ):
                    wrong.append(answer)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert backend.post("/predict", {"instances": []}).json["predictions"] == []
