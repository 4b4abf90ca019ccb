# Long: one story of several processes, told in order.
"""Three people publish one version at once, each from another language: one wins, and what is there is whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.backends.languages import Julia
from tests.contract.backends.linear import SAMPLES, SIGNATURE, write_joblib
from tests.contract.backends.process import ROOT
from tests.gcs.fixture import Gcs
from tests.patience import patience

R_PUBLISHES = """
for (f in sort(Sys.glob("backends/r/R/*.R"))) source(f)
given <- commandArgs(TRUE)
inputs <- list(chips_tensor("x", "FP64"), chips_tensor("n", "INT32"), chips_tensor("k", "INT64"))
samples <- list(list(request = list(instances = list(list(x = 1.5, n = 2L, k = 3L))), response = list(predictions = I(12))))
chips_publish(readRDS(given[[1]]), "linear", "1", inputs, list(chips_tensor("y")), samples, store = given[[2]], by = "r")
"""
JULIA_PUBLISHES = """
using ChipsBackend
publish(ARGS[1]; model = "linear", version = "1", store = ARGS[2], signature = ARGS[3], samples = ARGS[4], by = "julia")
"""


@pytest.mark.slow
@pytest.mark.timeout(300)  # a Julia compiles its program at each start
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_one_wins_and_the_others_are_told(
    kind: str, julia: Julia, linear_rds: Path, linear_jls: Path, gcs: Gcs, tmp_path: Path
):
    store = f"gs://{gcs.bucket}/models" if kind == "bucket" else str(tmp_path / "store")
    signature, samples = tmp_path / "signature.json", tmp_path / "samples.json"
    signature.write_text(json.dumps(SIGNATURE))
    samples.write_text(json.dumps(SAMPLES))
    joblib = str(write_joblib(tmp_path / "model.joblib"))
    described = (str(signature), str(samples))
    chips = (sys.executable, "-m", "gateway.cli")
    to = ("--model", "linear", "--version", "1", "--store", store)
    publishers = {
        "python": (
            *(*chips, "publish", joblib, *to, "--by", "python", "--no-try"),
            *("--signature", described[0], "--samples", described[1]),
        ),
        "r": ("Rscript", "--vanilla", "-e", R_PUBLISHES, str(linear_rds), store),
        "julia": (
            julia.program,
            "--startup-file=no",
            "-e",
            JULIA_PUBLISHES,
            str(linear_jls),
            store,
            *described,
        ),
    }
    # R publishes to a bucket by the command.
    environment = {
        **os.environ,
        **julia.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    running = {
        name: subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, command in publishers.items()
    }
    said = {name: process.communicate(timeout=patience(280))[0] for name, process in running.items()}
    winners = [name for name, process in running.items() if process.returncode == 0]
    assert len(winners) == 1, said
    for loser in running.keys() - set(winners):
        assert "published already" in said[loser], said

    def artifacts(verb: str) -> Any:
        done = subprocess.run(
            [*chips, "artifacts", verb, "linear", "1", "--store", store, "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    assert artifacts("verify")["ok"] is True
    assert artifacts("show")["manifest"]["created_by"] == winners[0]
