"""From files to a manifest: what no backend could serve is refused, with what it is and what to do."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from gateway.artifacts.manifest import Signature
from gateway.artifacts.prepare_artifact import prepare_artifact
from gateway.artifacts.read_baseline_statistics import parse_baseline

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def prepared(path: Path, **options: Any):
    return prepare_artifact(path, model="wine", version="1", created_by="ana", **options)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.joblib", b"", "empty"),
        ("model.joblib", LFS, "git lfs pull"),
        ("model.onnx", LFS, "git lfs pull"),
        ("model.rds", b"/annex/objects/SHA256E-s1", "git annex get"),
        ("model.onnx", b"<!DOCTYPE html>\n<html>", "HTML page"),
        ("model.joblib", b"\n  <HTML lang=en>", "HTML page"),
        ("model.ubj", b"<?xml version='1.0'?><Error><Code>AccessDenied", "XML"),
        ("model.skops", b"\x80\x04}.", "no skops file"),
        ("model.joblib", b"PK\x03\x04", "no joblib file"),
        ("model.rds", b"\x80\x04}.", "no rds file"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, name: str, content: bytes, says: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        prepared(path)


def test_a_pickle_of_the_training_script_is_refused_with_what_to_do(tmp_path: Path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"c__main__\ndays\n.")
    with pytest.raises(
        ValueError, match=r"takes days from the script that trained it.*move days into a module"
    ):
        prepared(path)


def test_what_it_needs_and_nobody_has_is_a_warning(tmp_path: Path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cown_steps\nDays\n.")
    assert "own_steps (Days)" in prepared(path).warnings[0]


def test_kserves_name_for_two_kinds_of_boosters(tmp_path: Path):
    path = tmp_path / "model.bst"
    path.write_bytes(b"tree\nversion=v4\n")
    assert prepared(path).manifest.format == "lightgbm"
    path.write_bytes(b"{L\x00")
    assert prepared(path).manifest.format == "xgboost"


INPUT = {"name": "x", "datatype": "FP64", "shape": [-1]}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([{**INPUT, "datatype": "float64"}], "'x' has the datatype 'float64': write FP64"),
        ([{**INPUT, "datatype": "object"}], "write BYTES"),
        ([{**INPUT, "datatype": "FP46"}], "did you mean FP64?"),
        ([INPUT, {**INPUT, "datatype": "INT64"}], "'x' stands 2 times"),
        ([{**INPUT, "name": ""}], "has no name"),
        ([{**INPUT, "shape": [-1, 0]}], "has the shape"),
        ([{**INPUT, "categories": [1]}], "which FP64 cannot have"),
        ([{**INPUT, "datatype": "BYTES", "categories": ["a", 1]}], "not texts"),
        ([{**INPUT, "datatype": "INT64", "categories": ["a"]}], "not whole numbers"),
        ([{**INPUT, "datatype": "BYTES", "categories": ["a", "a"]}], "a category twice"),
        ([{**INPUT, "datatype": "BYTES", "categories": []}], "empty list"),
    ],
)
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_signature_that_every_backend_would_refuse(tmp_path: Path, inputs: list[Any], says: str, side: str):
    model, signature = tmp_path / "model.onnx", tmp_path / "signature.json"
    model.write_bytes(b"x")
    signature.write_text(json.dumps({side: inputs}))
    with pytest.raises(ValueError, match=r"signature\.json") as refused:
        prepared(model, signature=signature)
    assert says in str(refused.value)


def test_categories_are_published(tmp_path: Path):
    model, signature = tmp_path / "model.onnx", tmp_path / "signature.json"
    model.write_bytes(b"x")
    content = {"inputs": [{**INPUT, "datatype": "BYTES", "categories": ["red", "green"]}]}
    signature.write_text(json.dumps(content))
    manifest = json.loads(prepared(model, signature=signature).manifest.encode())
    assert manifest["signature"]["inputs"][0]["categories"] == ["red", "green"]
    assert Signature().inputs == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (codecs.BOM_UTF8 + b"{}", "UTF-8 with a byte order mark"),
        ("{}".encode("utf-16"), "UTF-16"),
        ("{}".encode("utf-16-le"), "UTF-16 or UTF-32"),
        ("{}".encode("utf-16-be"), "UTF-16 or UTF-32"),
        ("{}".encode("utf-32"), "UTF-32"),
        (b'{\n"\xe4": 1}', "line 2 holds the byte 0xe4"),
    ],
)
@pytest.mark.parametrize("file", ["signature", "samples"])
def test_what_powershell_writes_is_named(tmp_path: Path, content: bytes, says: str, file: str):
    model, path = tmp_path / "model.onnx", tmp_path / f"{file}.json"
    model.write_bytes(b"x")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file}\.json is ") as refused:
        prepared(model, **{file: path})
    assert says in str(refused.value)
    assert "UTF-8" in str(refused.value)


def test_the_same_files_are_the_same_artifact_on_another_machine(tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    here, there = prepared(model, runtime={"numpy": "2.4"}), prepared(model, runtime={"numpy": "2.5"})
    assert here.manifest.has_same_content_as(there.manifest)
    model.write_bytes(b"y")
    assert not here.manifest.has_same_content_as(prepared(model).manifest)


def test_a_folder_as_save_writes_it(tmp_path: Path):
    """What describes the model goes into the manifest; the baseline and the author's modules go with the model."""
    for name, content in (
        ("model.txt", "tree\nversion=v4\n"),
        ("baseline.json", "{}"),
        ("features/text.py", "import json"),
        ("signature.json", '{"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]}'),
        ("samples.json", '[{"request": {"instances": [[1.0]]}, "response": {"predictions": [2.0]}}]'),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    manifest = prepared(tmp_path).manifest
    assert manifest.format == "lightgbm"
    assert [file.path for file in manifest.files] == ["baseline.json", "features/text.py", "model.txt"]
    assert [column.name for column in manifest.signature.inputs] == ["x"]
    assert len(manifest.samples) == 1
    (tmp_path / "other.json").write_text('{"inputs": []}')
    again = prepared(tmp_path, signature=tmp_path / "other.json").manifest
    assert not again.signature.inputs
    assert "other.json" not in [file.path for file in again.files]


def test_a_folder_that_only_describes_a_model(tmp_path: Path):
    (tmp_path / "signature.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no model"):
        prepared(tmp_path)


def test_packages_of_modules_next_to_a_pickle_are_needed(tmp_path: Path):
    (tmp_path / "model.pkl").write_bytes(b"cfeatures\ndays\n.")
    (tmp_path / "features.py").write_text("import pandas\nimport features_of_nobody")
    found = prepared(tmp_path)
    assert "pandas" in found.manifest.runtime
    assert ["features_of_nobody" in warning for warning in found.warnings] == [True]


BASELINE = {
    "schema": 1,
    "rows": 12,
    "least_count": 10,
    "inputs": {
        "x": {
            "datatype": "FP64", "count": 11, "missing": 1,
            "quantiles": {"gamma": 1.0202, "zero": 0, "negative": {"-3": 1}, "positive": {"0": 10}},
        },
        "plan": {"datatype": "BYTES", "count": 12, "missing": 0, "frequent": {"basic": 12}, "other": 0},
    },
    "outputs": {},
}  # fmt: skip


def saved(folder: Path) -> Path:
    (folder / "model.rds").write_bytes(b"X\n\0\0\0\3")
    signature = {"inputs": [{"name": "x", "datatype": "FP64"}, {"name": "plan", "datatype": "BYTES"}]}
    (folder / "signature.json").write_text(json.dumps(signature))
    return folder


def test_the_packages_that_save_wrote_down_are_the_runtime(tmp_path: Path):
    folder = saved(tmp_path)
    (folder / "runtime.json").write_text('{"R": "4.5.0", "mgcv": "1.9.1"}')
    found = prepared(folder)
    assert found.manifest.runtime == found.stated_runtime == {"R": "4.5.0", "mgcv": "1.9.1"}
    assert [name for name, _ in found.files] == ["model.rds"]
    assert prepared(folder, runtime={"R": "4.4.0"}).manifest.runtime == {"R": "4.4.0"}, (
        "who publishes knows better"
    )
    (folder / "runtime.json").write_text('["mgcv"]')
    with pytest.raises(ValueError, match=r"runtime\.json: Expected `object`"):
        prepared(folder)


def test_a_baseline_is_read_and_what_cannot_be_compared_is_said(tmp_path: Path):
    folder = saved(tmp_path)
    path = folder / "baseline.json"
    path.write_text(json.dumps(BASELINE))
    found = prepared(folder)
    assert [name for name, _ in found.files] == ["baseline.json", "model.rds"]
    assert found.warnings == []
    x = parse_baseline(path.read_bytes()).inputs["x"]
    assert x.quantiles is not UNSET
    assert (x.count, x.quantiles.negative) == (11, {-3: 1})
    path.write_text(json.dumps({**BASELINE, "inputs": {"x": BASELINE["inputs"]["x"]}}))  # type: ignore[index]
    assert "other inputs than the signature" in prepared(folder).warnings[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "cannot be read"),
        ({"more": 1}, "unknown field"),
        ({"rows": 13}, "'x' has not 13 rows"),
        ({"least_count": 13}, "'plan' names a value that too few rows have"),
        ({"inputs": {"x": {"datatype": "FP64", "count": 12, "missing": 0}}}, "either quantiles, or frequent and other"),
        ({"inputs": {"x": {"datatype": "FP64", "count": -1, "missing": 0}}}, "cannot be read"),
    ],
)  # fmt: skip
def test_a_baseline_that_is_none_says_why(change: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        parse_baseline(json.dumps({**BASELINE, **change}).encode())
