"""`chips artifacts`: list, show, verify and pull, from a folder and from Cloud Storage, whole and damaged."""

import gc
import hashlib
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.gcs.fixture import Gcs
from tests.patience import patience
from tests.unit.cli.shell import Shell

MIB = 1 << 20

# Google's client lets go of a connection that broke without closing it; the collector does, and warns.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def broken_connections_are_closed_here() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setattr("gateway.artifacts.gcs._FIRST_DELAY_S", 0.001)
    return Shell(tmp_path, monkeypatch, capsys)


class Place:
    """A store, and how somebody would damage what lies there."""

    def __init__(self, url: str, gcs: Gcs | None) -> None:
        self.url = url
        self._gcs = gcs

    def replace(self, path: str, content: bytes | None) -> None:
        if self._gcs is None:
            target = Path(self.url, path)
            target.unlink()
            if content is not None:
                target.write_bytes(content)
            return
        name = urllib.parse.quote(f"models/{path}", safe="")
        bucket = f"{self._gcs.url}/storage/v1/b/{self._gcs.bucket}/o/{name}"
        urllib.request.urlopen(urllib.request.Request(bucket, method="DELETE"), timeout=patience(10)).close()
        if content is not None:
            upload = f"{self._gcs.url}/upload/storage/v1/b/{self._gcs.bucket}/o?uploadType=media&name={name}"
            urllib.request.urlopen(urllib.request.Request(upload, content), timeout=patience(10)).close()


@pytest.fixture(params=["folder", "bucket"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> Place:
    gcs = request.getfixturevalue("gcs") if request.param == "bucket" else None
    url = str(tmp_path / "store") if gcs is None else f"gs://{gcs.bucket}/models"
    monkeypatch.setenv("CHIPS_ARTIFACTS", url)
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "model.joblib").write_bytes(b"\x80" + Random(1).randbytes(9 * MIB))
    (source / "sub/labels.txt").write_text("a\nb\n")
    for version in ("1", "2"):
        shell.ok("publish", str(source), "--model", "wine", "--version", version, "--no-try")
    shell.ok("publish", str(source / "model.joblib"), "--model", "beer", "--version", "1", "--no-try")
    return Place(url, gcs)


def path_of(shell: Shell, suffix: str) -> str:
    files = shell.ok("artifacts", "show", "wine", "2", "--json").json()["manifest"]["files"]
    (path,) = [file["path"] for file in files if file["path"].endswith(suffix)]
    return f"wine/2/{path}"


def test_list(shell: Shell, place: Place):
    listed = shell.ok("artifacts", "list", "--json").json()
    assert [(entry["model"], entry["version"]) for entry in listed] == [
        ("beer", "1"),
        ("wine", "1"),
        ("wine", "2"),
    ]
    assert [entry["version"] for entry in shell.ok("artifacts", "list", "wine", "--json").json()] == [
        "1",
        "2",
    ]
    table = shell.ok("artifacts", "list").out
    assert "9.0 MiB" in table
    assert listed[0]["digest"][:19] in table
    assert "nothing" in shell.ok("artifacts", "list", "gin").out
    assert shell.ok("artifacts", "list", "win").out.startswith("nothing"), "a name, not its beginning"


def test_a_broken_manifest_is_listed_as_such(shell: Shell, place: Place):
    place.replace("wine/1/manifest.json", b"{")
    listed = shell.ok("artifacts", "list", "--json").json()
    assert "cannot be read" in listed[1]["problem"]
    assert "digest" in listed[2]
    shell.ok("artifacts", "list")


def test_show(shell: Shell, place: Place):
    shown = shell.ok("artifacts", "show", "wine", "1")
    published = shell.ok("artifacts", "list", "wine", "--json").json()[0]
    assert published["digest"] in shown.out
    assert published["artifact"] in shown.out
    assert "sub/labels.txt  4 B" in shown.out


def test_verify(shell: Shell, place: Place):
    assert "is what was published: sha256:" in shell.ok("artifacts", "verify", "wine", "1").out
    assert shell.ok("artifacts", "verify", "wine", "1", "--json").json()["files"] == {
        "model.joblib": "ok",
        "sub/labels.txt": "ok",
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"A\nb\n", "another SHA-256"),
        (b"a\nb", "fewer than"),
        (b"a\nb\nc", "more than"),
        (None, "is missing"),
    ],
)
def test_what_was_damaged_is_found_and_not_pulled(
    shell: Shell, place: Place, tmp_path: Path, content: Any, says: str
):
    place.replace(path_of(shell, "labels.txt"), content)
    found = shell("artifacts", "verify", "wine", "2")
    assert found.code == 65
    assert says in found.out
    assert "new version" in found.err
    as_json = shell("artifacts", "verify", "wine", "2", "--json")
    assert (as_json.code, as_json.json()["ok"]) == (65, False)
    pulled = shell("artifacts", "pull", "wine", "2", "--to", "here")
    assert pulled.code == 65
    assert says in pulled.err
    assert [path.name for path in tmp_path.iterdir() if "here" in path.name] == []
    shell.ok("artifacts", "verify", "wine", "1")


def test_pull(shell: Shell, place: Place, tmp_path: Path):
    pulled = shell.ok("artifacts", "pull", "wine", "2", "--json").json()
    assert pulled["folder"] == "wine-2"
    for name in ("model.joblib", "sub/labels.txt"):
        assert (tmp_path / "wine-2" / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    manifest = (tmp_path / "wine-2/manifest.json").read_bytes()
    assert pulled["digest"] == "sha256:" + hashlib.sha256(manifest).hexdigest()
    again = shell("artifacts", "pull", "wine", "2")
    assert again.code == 73
    assert "--to" in again.err


def test_what_is_pulled_is_what_a_backend_loads(shell: Shell, place: Place, tmp_path: Path):
    import io

    from chips_backend.artifact import Wanted, obtain
    from chips_backend.logs import Log

    pulled = shell.ok("artifacts", "pull", "wine", "2", "--json").json()
    log = Log(io.StringIO())
    here = obtain(str(tmp_path / "wine-2"), tmp_path / "cache", Wanted("wine", "2", pulled["digest"]), log)
    assert here.folder == tmp_path / "wine-2"
    there = obtain(f"{place.url}/wine/2", tmp_path / "cache", Wanted(digest=here.digest), log)
    assert (there.folder / "sub/labels.txt").read_text() == "a\nb\n"


def test_a_manifest_that_points_outside_is_not_followed(shell: Shell, place: Place, tmp_path: Path):
    content = shell.ok("artifacts", "show", "wine", "2", "--json").json()["manifest"]
    content["files"][0]["path"] = "../../escaped"
    import json

    place.replace("wine/2/manifest.json", json.dumps(content).encode())
    for verb in ("show", "verify", "pull"):
        ended = shell("artifacts", verb, "wine", "2")
        assert ended.code == 65
        assert "outside of the artifact" in ended.err
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("verb", ["show", "verify", "pull"])
@pytest.mark.parametrize(
    ("model", "version"), [("wine", "9"), ("gin", "1"), ("../store/wine", "1"), ("wine", "..")]
)
def test_what_is_not_published_is_told(shell: Shell, place: Place, verb: str, model: str, version: str):
    ended = shell("artifacts", verb, model, version)
    assert ended.code == 65
    assert ended.out == ""
    assert shell("artifacts", verb, model, version, "--json").json()["error"]["exit_code"] == 65


@pytest.mark.parametrize("fault", [{"status": 503}, {"reset": True}, {"truncate": MIB}])
def test_a_network_that_breaks_is_borne(
    shell: Shell, gcs: Gcs, tmp_path: Path, monkeypatch, fault: dict[str, Any]
):
    monkeypatch.setenv("CHIPS_ARTIFACTS", f"gs://{gcs.bucket}/models")
    (tmp_path / "model.joblib").write_bytes(b"\x80" + Random(2).randbytes(9 * MIB))
    shell.ok("publish", "model.joblib", "--model", "wine", "--version", "1", "--no-try")
    gcs.fault(method="GET", path="model.joblib.*alt=media", times=1, **fault)
    shell.ok("artifacts", "verify", "wine", "1")


def test_what_is_denied_is_told(shell: Shell, gcs: Gcs, monkeypatch):
    monkeypatch.setenv("CHIPS_ARTIFACTS", f"gs://{gcs.bucket}/models")
    gcs.fault(times=9, status=403)
    ended = shell("artifacts", "list")
    assert ended.code == 77
    assert "permission" in ended.err


def test_files_are_uploaded_some_at_a_time(shell: Shell, gcs: Gcs, tmp_path: Path, monkeypatch):
    """Many small files, and faults: all arrive, whatever their order."""
    monkeypatch.setenv("CHIPS_ARTIFACTS", f"gs://{gcs.bucket}/models")
    source = tmp_path / "many"
    source.mkdir()
    for number in range(60):
        (source / f"part{number:03}.bin").write_bytes(Random(3).randbytes(1000 + number))
    # Together fewer than one file may meet: nobody says which of them meets how many.
    gcs.fault(method="PUT", path="upload_id", times=4, status=503)
    gcs.fault(method="PUT", path="upload_id", times=4, reset=True)
    shell.ok("publish", str(source), "--model", "wine", "--version", "1", "--format", "rds", "--no-try")
    assert set(shell.ok("artifacts", "verify", "wine", "1", "--json").json()["files"].values()) == {"ok"}
