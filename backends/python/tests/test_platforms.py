"""The same command under other platforms' rules: Vertex AI, which sets AIP_* only, and KServe, which talks /v2."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from chips_backend.testing import manifest_of, running

FOLDER = Path(__file__).resolve().parents[1]
ROWS = [[1.0, 2], [3.0, 4]]


def test_vertex_knows_no_names_of_ours(model):
    """cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements"""
    endpoint = "/v1/endpoints/123/deployedModels/456"
    environ = {
        "AIP_STORAGE_URI": str(model),
        "AIP_HTTP_PORT": "0",
        "PORT": "",
        "AIP_HEALTH_ROUTE": endpoint,
        "AIP_PREDICT_ROUTE": f"{endpoint}:predict",
        "AIP_MODE": "PREDICTION",
        "AIP_MODEL_NAME": "anything",
        "AIP_ENDPOINT_ID": "123",
        "AIP_DEPLOYED_MODEL_ID": "456",
        "AIP_PROJECT_NUMBER": "789",
        "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
    }
    with running(environ) as backend:
        health = backend.get(endpoint)
        assert health.status == 200
        answer = backend.post(f"{endpoint}:predict", {"instances": ROWS, "parameters": {"as": 7}})
        assert answer.status == 200
        assert answer.json["predictions"] == [7, 7]
        assert answer.headers["X-Chips-Model"] == "test@1", "its manifest says so"
        assert backend.get(f"{endpoint}:predict").status == 405
        assert backend.post("/predict", {"instances": ROWS}).status == 200, "our own paths stay"
        assert backend.get("/v2/models/test").json["versions"] == ["1"]


def test_vertex_copies_the_artifact_to_a_bucket_of_its_own(gcs, model, tmp_path):
    import urllib.parse
    import urllib.request

    for path in model.iterdir():
        name = urllib.parse.quote(f"caip-tenant/model/{path.name}", safe="")
        url = f"{gcs.url}/upload/storage/v1/b/{gcs.bucket}/o?uploadType=media&name={name}"
        urllib.request.urlopen(urllib.request.Request(url, path.read_bytes()), timeout=60).close()  # noqa: S310
    environ = {
        "AIP_STORAGE_URI": f"gs://{gcs.bucket}/caip-tenant/model",
        "STORAGE_EMULATOR_HOST": gcs.url,
        "CHIPS_CACHE_DIR": str(tmp_path / "cache"),
        "AIP_HEALTH_ROUTE": "/ping",
        "AIP_PREDICT_ROUTE": "/predictions",
    }
    with running(environ) as backend:
        assert backend.get("/ping").status == 200
        assert backend.post("/predictions", {"instances": ROWS}).json["predictions"] == [3.0, 7.0]


def test_kserve_talks_the_open_inference_protocol(tmp_path, model):
    """Its storage initializer has copied the bucket to /mnt/models; its names are the manifest's or ours."""
    copy = tmp_path / "mnt/models"
    copy.mkdir(parents=True)
    code = (model / "model.py").read_bytes()
    manifest = manifest_of({"model.py": code}, **{
        name: value
        for name, value in json.loads((model / "manifest.json").read_text()).items()
        if name in {"format", "signature", "samples"}
    })  # fmt: skip
    (file,) = manifest["files"]
    file["path"] = f"{file['sha256'][:16]}/model.py"
    (copy / file["path"]).parent.mkdir()
    (copy / file["path"]).write_bytes(code)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    environ = {"CHIPS_ARTIFACT": str(copy), "CHIPS_MODEL": "test", "CHIPS_CACHE_DIR": str(tmp_path / "cache")}
    with running(environ) as backend:
        assert backend.get("/v2/health/live").json["live"] is True
        assert backend.get("/v2/health/ready").json["ready"] is True
        assert backend.get("/v2/models/test/ready").json == {"ready": True, "name": "test"}
        described = backend.get("/v2/models/test").json
        request = {
            "id": "a1",
            "inputs": [
                {"name": tensor["name"], "shape": [2], "datatype": tensor["datatype"], "data": [1, 3]}
                for tensor in described["inputs"]
            ],
        }
        answer = backend.post("/v2/models/test/versions/1/infer", request).json
        (output,) = answer["outputs"]
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("test", "1", "a1")
        assert (output["shape"], output["datatype"], output["data"]) == ([2], "FP64", [2.0, 6.0])
        error = backend.post("/v2/models/test/infer", {"inputs": []})
        assert (error.status, set(error.json) >= {"error"}) == (422, True)


def test_the_image_names_what_exists():
    """No Docker engine runs here; but what it would copy, install and start can be compared with what there is."""
    import tomllib

    text = (FOLDER / "Dockerfile").read_text()
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    (default,) = [
        line.removeprefix("ARG EXTRAS=") for line in text.splitlines() if line.startswith("ARG EXTRAS=")
    ]
    assert set(default.split(",")) <= project["optional-dependencies"].keys()
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            assert (FOLDER / line.split()[1]).exists()
    (entry,) = [
        line.removeprefix("ENTRYPOINT ") for line in text.splitlines() if line.startswith("ENTRYPOINT ")
    ]
    assert json.loads(entry) == ["python", "-m", "chips_backend"], "exec form: it is PID 1 itself"
    users = [line for line in text.splitlines() if line.startswith("USER ")]
    assert users == ["USER 10001"], "a number, so that a platform sees that it is not root"


def test_every_file_compiles_as_the_image_does_it(tmp_path):
    shutil.copytree(FOLDER / "chips_backend", tmp_path / "chips_backend")
    command = [sys.executable, "-W", "error", "-m", "compileall", "-q", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
