"""chips_publish() in R writes what `chips publish` writes, to the byte."""

import json
import os
import sys
from pathlib import Path

import pytest
import requests

from gateway.artifacts.manifest import parse_manifest
from tests.contract.backends.languages import run_r
from tests.contract.backends.linear import publish
from tests.contract.backends.r.conftest import Start
from tests.gcs.fixture import Gcs
from tests.patience import patience

pytestmark = pytest.mark.slow

PUBLISH = r"""
arguments <- commandArgs(TRUE)
inputs <- list(chips_tensor("x", "FP64"), chips_tensor("n", "INT32"), chips_tensor("k", "INT64"))
samples <- list(list(request = list(instances = list(list(x = 1.5, n = 2L, k = 3L))),
                     response = list(predictions = I(12))),
                list(request = list(instances = list(list(0, 0L, 0L), list(1e-7, 1e15, 1L)), a = "\u00fc\"\\"),
                     response = list(predictions = c(0, 0.1)), tolerance = 0.25))
chips_publish(readRDS(arguments[1]), "linear", arguments[2], inputs, list(chips_tensor("y")), samples,
              store = arguments[3], packages = "jsonlite", by = "ana")
"""


def test_the_manifest_is_the_gateways_to_the_byte(has_r: None, linear_rds: Path, tmp_path: Path):
    run_r(PUBLISH, str(linear_rds), "1", str(tmp_path))
    content = (tmp_path / "linear/1/manifest.json").read_bytes()
    manifest = parse_manifest(content)
    assert manifest.encode() == content
    assert (manifest.created_by, manifest.format, sorted(manifest.runtime)) == (
        "ana",
        "rds",
        ["R", "jsonlite"],
    )


def test_the_command_finds_the_same_published(has_r: None, linear_rds: Path, tmp_path: Path):
    """Whichever publishes first, the other's version with other content is refused."""
    publish(str(tmp_path), linear_rds, "linear")
    before = (tmp_path / "linear/1/manifest.json").read_bytes()
    with pytest.raises(AssertionError, match="never changes"):
        run_r(PUBLISH, str(linear_rds), "1", str(tmp_path))
    assert (tmp_path / "linear/1/manifest.json").read_bytes() == before
    assert [entry.name for entry in (tmp_path / "linear").iterdir()] == ["1"]


def test_to_cloud_storage_by_the_command(
    start_r: Start, linear_rds: Path, gcs: Gcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    store = f"gs://{gcs.bucket}/models"
    scored = PUBLISH.replace("1e15", "1L").replace("c(0, 0.1)", "c(0, 4)").replace(r', a = "\u00fc\"\\"', "")
    run_r(scored, str(linear_rds), "1", store)
    manifest = requests.get(
        f"{gcs.url}/{gcs.bucket}/models/linear/1/manifest.json", timeout=patience(10)
    ).json()
    assert manifest["runtime"]["R"]
    assert json.dumps(manifest["samples"][0]["response"]) == '{"predictions": [12.0]}'
    backend = start_r(
        {"CHIPS_ARTIFACT": f"{store}/linear/1/", "CHIPS_CACHE_DIR": tmp_path, "CHIPS_CONCURRENCY": "1"}
    )
    assert backend.ready().predict([1.5, 2, 3]).json()["predictions"] == [12.0]
