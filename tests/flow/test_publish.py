# Long: one command with its interruptions and contests.
"""Publishing: to a folder and to Cloud Storage, interrupted, repeated, contested."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest
import requests

from gateway.artifacts.artifact_store_interface import (
    PermissionRefused,
    PublishedWithOtherContent,
    StoreError,
    StoreUnavailable,
)
from gateway.artifacts.manifest import Manifest, build_manifest, list_all_files, parse_manifest
from gateway.artifacts.open_store_by_url import open_store
from tests.gcs.fixture import Gcs
from tests.patience import patience
from tests.unit.cli.shell import Shell

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.artifacts.gcs._FIRST_DELAY_S", 0.001)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.joblib").write_bytes(b"\x80" + Random(1).randbytes(20 * MIB))
    (folder / "sub" / "labels.txt").write_text("a\nb\n")
    return folder


def manifest_of(source: Path, version: str = "1", by: str = "ana") -> Manifest:
    return build_manifest(
        list_all_files(source), model="wine", version=version, format="joblib", created_by=by
    )


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    url = str(tmp_path / "store")
    if request.param == "bucket":
        url = f"gs://{request.getfixturevalue('gcs').bucket}/models"
    opened = open_store(url, upload_state_folder=tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def bucket(gcs: Gcs, tmp_path: Path):
    opened = open_store(f"gs://{gcs.bucket}/models", upload_state_folder=tmp_path / "state")
    yield opened
    opened.close()


def publish(store, source: Path, manifest: Manifest | None = None) -> tuple[bool, int]:
    told: list[int] = []
    new = store.publish(manifest or manifest_of(source), dict(list_all_files(source)), told.append)
    return new, sum(told)


def test_a_version_is_published_once_and_never_changes(store, source):
    manifest = manifest_of(source)
    assert store.manifest("wine", "1") is None
    assert publish(store, source, manifest) == (True, manifest.total_bytes)
    stored = store.manifest("wine", "1")
    assert [(file.bytes, file.sha256) for file in stored.files] == [
        (f.bytes, f.sha256) for f in manifest.files
    ]
    again, _ = publish(store, source, manifest_of(source, by="bea"))
    assert not again
    assert store.manifest("wine", "1").created_by == "ana"
    (source / "model.joblib").write_bytes(b"other")
    with pytest.raises(PublishedWithOtherContent):
        publish(store, source)
    assert store.manifest("wine", "1") == stored
    assert publish(store, source, manifest_of(source, "2"))[0]


def test_of_many_publishers_one_wins(store, source, tmp_path):
    outcomes: list[object] = []

    def one(number: int) -> None:
        mine = tmp_path / f"mine{number}"
        mine.mkdir()
        (mine / "model.joblib").write_bytes(b"%d" % number * 1000)
        try:
            outcomes.append(publish(store, mine, manifest_of(mine))[0])
        except StoreError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(True) == 1, outcomes
    assert len([outcome for outcome in outcomes if "published already" in str(outcome)]) == 5, outcomes


def test_what_is_stored_is_what_the_manifest_says(bucket, source, gcs):
    publish(bucket, source)
    manifest = parse_manifest(
        requests.get(f"{gcs.url}/{gcs.bucket}/models/wine/1/manifest.json", timeout=patience(9)).content
    )
    for file in manifest.files:
        content = requests.get(
            f"{gcs.url}/{gcs.bucket}/models/wine/1/{file.path}", timeout=patience(9)
        ).content
        assert hashlib.sha256(content).hexdigest() == file.sha256


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"reset": True}, {"truncate": 3 * MIB}])
def test_a_broken_upload_goes_on_where_it_was(bucket, source, gcs, fault):
    gcs.fault(method="PUT", path="upload_id", times=2, **fault)
    assert publish(bucket, source) == (True, manifest_of(source).total_bytes)


def test_another_run_goes_on_where_this_one_was_stopped(bucket, source, gcs, tmp_path, monkeypatch):
    class Stopped(BaseException): ...

    sent: list[int] = []

    def stop_in_the_middle(count: int) -> None:
        sent.append(count)
        if sum(sent) > 10 * MIB:
            raise Stopped

    with pytest.raises(Stopped):
        bucket.publish(manifest_of(source), dict(list_all_files(source)), stop_in_the_middle)
    gcs.clear()
    opened = open_store(f"gs://{gcs.bucket}/models", upload_state_folder=tmp_path / "state")
    assert publish(opened, source)[0]
    opened.close()
    parts = [path for method, path in gcs.requests() if method == "PUT" and "upload_id" in path]
    # One question, what was missing of 20 MiB in parts of 8, and the small file: not everything again.
    assert len(parts) <= 5
    assert not any("uploadType=resumable&name" in path for _, path in gcs.requests() if "joblib" in path)


def test_an_upload_session_that_is_gone_is_opened_anew(bucket, source, gcs):
    gcs.fault(method="PUT", path="upload_id", status=410)
    # The state of an earlier run names a session that the server no longer knows.
    from gateway.artifacts.gcs import _Sessions

    manifest = manifest_of(source)
    sessions: _Sessions = bucket._sessions
    (file,) = [file for file in manifest.files if file.path == "model.joblib"]
    sessions.save(
        f"models/wine/1/{file.sha256[:16]}/model.joblib",
        file.sha256,
        f"{gcs.url}/upload/storage/v1/b/{gcs.bucket}/o?upload_id=gone",
    )
    assert publish(bucket, source, manifest)[0]


def test_a_service_that_stays_away(bucket, source, gcs, monkeypatch):
    monkeypatch.setattr("gateway.artifacts.gcs._ATTEMPTS", 2)
    gcs.fault(method="PUT", path="upload_id", status=503, times=1000)
    with pytest.raises(StoreUnavailable, match="go on from here"):
        publish(bucket, source)
    assert bucket.manifest("wine", "1") is None


def test_no_permission(bucket, source, gcs):
    gcs.fault(method="POST", path="/upload/", status=403)
    with pytest.raises(PermissionRefused, match=r"roles/storage\.objectUser"):
        publish(bucket, source)


def test_no_such_bucket(source, gcs, tmp_path):
    opened = open_store("gs://nobody-has-this/x", upload_state_folder=tmp_path)
    with pytest.raises(StoreError, match="no bucket"):
        publish(opened, source)
    opened.close()


def test_a_file_that_changes_while_it_is_published(store, source):
    manifest = manifest_of(source)
    content = bytearray((source / "model.joblib").read_bytes())
    content[5] ^= 1
    (source / "model.joblib").write_bytes(content)
    for _ in range(2):  # and not either when an object of that name and size is there already
        with pytest.raises(StoreError, match="changed while"):
            publish(store, source, manifest)
    assert store.manifest("wine", "1") is None


def test_what_is_stored_is_compared_with_what_was_sent(bucket, source, gcs):
    shutil.rmtree(source / "sub")
    gcs.fault(method="PUT", path="upload_id", truncate=3 * MIB)
    gcs.fault(
        method="PUT", path="upload_id", corrupt=True, times=9
    )  # once, in the first part that comes then
    with pytest.raises(StoreError, match=r"is not what was sent .*CRC32C.*run the same command again"):
        publish(bucket, source)
    assert bucket.manifest("wine", "1") is None
    names = [blob.name for blob in bucket._bucket.list_blobs() if "model.joblib" in blob.name]
    assert names == [], "the wrong object is removed"
    assert publish(bucket, source)[0]
    stored = bucket.manifest("wine", "1")
    assert {file.sha256 for file in stored.files} == {file.sha256 for file in manifest_of(source).files}


def test_a_lookalike_from_a_run_that_broke_off_is_replaced(bucket, source, gcs):
    """Its size and its label are right; its content is not."""
    (file,) = [file for file in manifest_of(source).files if file.path == "model.joblib"]
    blob = bucket._bucket.blob(f"models/wine/1/{file.sha256[:16]}/{file.path}")
    blob.metadata = {"sha256": file.sha256}
    blob.upload_from_string(b"x" * file.bytes)
    assert publish(bucket, source)[0]
    manifest = bucket.manifest("wine", "1")
    (stored,) = [entry for entry in manifest.files if entry.path.endswith("joblib")]
    assert (
        hashlib.sha256(b"".join(bucket.unverified_file_blocks(manifest, stored))).hexdigest() == file.sha256
    )


def test_an_object_of_another_content_in_the_way_is_replaced(bucket, source, gcs):
    (file,) = [file for file in manifest_of(source).files if file.path == "model.joblib"]
    name = f"models/wine/1/{file.sha256[:16]}/{file.path}"
    requests.put(f"{gcs.url}/{gcs.bucket}/{name}", data=b"half", timeout=patience(9))
    assert publish(bucket, source)[0]
    assert len(requests.get(f"{gcs.url}/{gcs.bucket}/{name}", timeout=patience(9)).content) == file.bytes


@pytest.mark.parametrize("url", ["", "ftp://x/y", "gs:///x"])
def test_stores_that_are_none(url, tmp_path):
    with pytest.raises(StoreError):
        open_store(url, upload_state_folder=tmp_path)


# -- the command


def chips(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )


def test_the_command_that_it_prints_can_be_pasted_whatever_the_folder_is_called(source, tmp_path):
    store = tmp_path / "my models (old)"
    model = ("--model", "wine", "--version", "3", "--no-try", "--runtime", "R=4.2.2")
    done = chips("publish", str(source), *model, "--store", str(store))
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("next")]
    assert f"CHIPS_ARTIFACT={store}/wine/3" in shlex.split(line)


def test_the_command(source, tmp_path, gcs):
    arguments = [
        "publish",
        str(source),
        "--model",
        "wine",
        "--version",
        "3",
        "--store",
        f"gs://{gcs.bucket}/m",
        "--no-try",
    ]
    done = chips(*arguments, "--runtime", "R=4.2.2")
    assert done.returncode == 0, done.stderr
    assert f"gs://{gcs.bucket}/m/wine/3/" in done.stdout
    assert "CHIPS_ARTIFACT=" in done.stdout
    assert "published 100 %" in done.stderr
    again = json.loads(chips(*arguments, "--runtime", "R=4.2.2", "--json").stdout)
    assert again["published"] is False
    assert again["digest"] in done.stdout
    (source / "model.joblib").write_bytes(b"\x80other")
    other = chips(*arguments)
    assert other.returncode == 73
    assert "new --version" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nothing-here", "--model", "wine", "--version", "1"], 65, "does not exist"),
        (["{source}", "--model", "Wine", "--version", "1"], 65, "cannot be a model's name"),
        (["{source}", "--model", "wine", "--version", "1/2"], 65, "cannot be a version"),
        (["{source}", "--model", "wine"], 64, "version"),
        (["{source}", "--model", "wine", "--version", "1"], 65, "CHIPS_ARTIFACTS"),
        (
            ["{source}", "--model", "wine", "--version", "1", "--samples", "{source}/sub/labels.txt"],
            65,
            "labels.txt",
        ),
        (["{source}/sub", "--model", "wine", "--version", "1"], 65, "--format"),
    ],
)
def test_wrong_commands(source, arguments, code, says):
    done = chips("publish", *[argument.replace("{source}", str(source)) for argument in arguments])
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# -- tried before it is published


@pytest.fixture
def wine(tmp_path: Path) -> list[str]:
    """The arguments that publish a small real model."""
    joblib = pytest.importorskip("joblib")
    from sklearn.linear_model import LinearRegression

    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0]), tmp_path / "model.joblib")
    signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]}
    sample = {"request": {"instances": [{"x": 2.0}, {"x": 3.0}]}, "response": {"predictions": [5.0, 7.0]}}
    (tmp_path / "signature.json").write_text(json.dumps(signature))
    (tmp_path / "samples.json").write_text(json.dumps([sample]))
    return [
        *("publish", str(tmp_path / "model.joblib"), "--model", "wine", "--version", "1"),
        *("--signature", str(tmp_path / "signature.json"), "--samples", str(tmp_path / "samples.json")),
        *("--store", str(tmp_path / "store")),
    ]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT}/backends/python")
    return shell


def test_what_loads_and_scores_is_published(shell: Shell, wine: list[str]):
    told = shell.ok(*wine, "--json").json()
    assert told["published"] is True
    assert "1 sample came out as published" in told["tried"]
    assert shell.ok(*wine, "--json").json()["tried"] is None, "what is published already is not tried again"


def test_a_wrong_sample_costs_no_version(shell: Shell, wine: list[str], tmp_path: Path):
    samples = json.loads((tmp_path / "samples.json").read_text())
    samples[0]["response"]["predictions"] = [5.0, 8.0]
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    ended = shell(*wine)
    assert ended.code == 65
    assert "nothing was published" in ended.err
    assert "--no-try" in ended.err
    assert not (tmp_path / "store").exists()
    shell.ok(*wine, "--no-try")
    assert (tmp_path / "store/wine/1/manifest.json").exists()


def test_a_model_that_looks_at_other_rows_costs_no_version(shell: Shell, wine: list[str], tmp_path: Path):
    (tmp_path / "model.joblib").unlink()
    (tmp_path / "model.py").write_text(
        "def load(folder):\n    return None\n\n"
        "def predict(model, rows, parameters):\n"
        "    return [2 * row[0] + 1 + (len(rows) - 2) for row in rows]\n"
    )
    wine[1] = str(tmp_path / "model.py")
    ended = shell(*wine)
    assert ended.code == 76
    assert "rows/together" in ended.err
    assert 'rows = "together"' in ended.err
    assert not (tmp_path / "store").exists()


def test_where_there_is_no_backend_for_it_that_is_said(shell: Shell, wine: list[str], tmp_path: Path):
    (tmp_path / "model.rds").write_bytes(b"X\n")
    wine[1] = str(tmp_path / "model.rds")
    ended = shell.ok(*wine)
    assert "not tried before it is published" in ended.err
    wine[5] = "2"
    ended = shell(*wine, "--try-with", f"{sys.executable} -c 'raise SystemExit(\"no R here\")'")
    assert ended.code == 65
    assert "no R here" in ended.err


def test_a_module_beside_the_model_is_found(shell: Shell, wine: list[str], tmp_path: Path):
    """As the message about functions of the training script says."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "own_steps.py").write_text(
        "import numpy\n\n\ndef double(table):\n    return 2 * numpy.asarray(table)\n"
    )
    code = (
        "import joblib, own_steps\n"
        "from sklearn.linear_model import LinearRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import FunctionTransformer\n"
        "model = make_pipeline(FunctionTransformer(own_steps.double), LinearRegression())\n"
        "joblib.dump(model.fit([[0.0], [1.0]], [1.0, 3.0]), 'model.joblib')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=patience(120))
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    wine[1] = str(folder)
    ended = shell.ok(*wine)
    assert "1 sample came out as published" in ended.out
    assert "warning" not in ended.err
