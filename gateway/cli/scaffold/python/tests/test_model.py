"""The model predicts what it did when it was trained. Make these tests your own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chips_backend import predict
from chips_backend.manifest import File, Manifest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run([sys.executable, ROOT / "examples/wine/train.py", folder], check=True)
    return folder


def test_the_samples_come_out_as_in_training(trained):
    name = "model.joblib"
    file = File(path=name, bytes=(trained / name).stat().st_size, sha256="")
    manifest = Manifest(schema=1, model="@NAME@", version="1", format="joblib", files=(file,))
    model = predict.load(trained, manifest)
    for sample in json.loads((trained / "samples.json").read_text()):
        rows = [list(instance.values()) for instance in sample["request"]["instances"]]
        assert list(predict.predict(model, rows, {})) == sample["response"]["predictions"]
