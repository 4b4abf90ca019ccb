import json

import pytest
from chips_backend.manifest import parse_manifest
from chips_backend.testing import manifest_of


def parse(**fields):
    return parse_manifest(json.dumps(manifest_of({"model.joblib": b"x"}, **fields)).encode())


def with_path(path):
    (file,) = manifest_of({"model.joblib": b"x"})["files"]
    return {"files": [{**file, "path": path}]}


def test_what_publishing_writes_is_read():
    manifest = parse(runtime={"python": "3.13"}, unknown_to_us="is left alone")
    assert manifest.main_file(".joblib") == "model.joblib"
    assert manifest.runtime == {"python": "3.13"}


@pytest.mark.parametrize(
    "path",
    [
        "../model.joblib", "/etc/passwd", "a/../../b", "..", ".", "", "a//b", "a/./b", "a/", "/", "..\\x", "a\\b",
        "C:\\x", "a\0b", "./model.joblib",
    ],
)  # fmt: skip
def test_a_path_that_leaves_the_folder_is_refused(path):
    with pytest.raises(ValueError, match=r"outside|cannot be read"):
        parse(**with_path(path))


@pytest.mark.parametrize(
    "path", ["model.joblib", "sub/folder/model.joblib", "weights..bin", ".hidden", "ä b.joblib"]
)
def test_an_ordinary_path_is_taken(path):
    assert parse(**with_path(path)).files[0].place == path


def test_the_stores_prefix_is_no_part_of_a_files_place():
    (file,) = manifest_of({"model.joblib": b"x"})["files"]
    named = file["sha256"][:16] + "/sub/model.joblib"
    manifest = parse(**with_path(named))
    assert (manifest.files[0].path, manifest.files[0].place) == (named, "sub/model.joblib")
    other = "0" * 16 + "/model.joblib"
    assert parse(**with_path(other)).files[0].place == other, "only the file's own digest"


def test_the_prefix_is_no_way_out_of_the_folder():
    (file,) = manifest_of({"model.joblib": b"x"})["files"]
    for rest in ("../x", "/x", ""):
        with pytest.raises(ValueError, match="outside"):
            parse(**with_path(file["sha256"][:16] + "/" + rest))


def test_two_files_in_one_place_are_refused():
    (file,) = manifest_of({"m": b"x"})["files"]
    with pytest.raises(ValueError, match="twice"):
        parse(files=[file, {**file, "path": file["sha256"][:16] + "/m"}])


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": 2},
        {"model": "../../etc"},
        {"model": ""},
        {"version": "a/b"},
        {"files": [{"path": "a", "bytes": -1, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "bytes": 1, "sha256": "xyz"}]},
        {"files": "none"},
        {"signature": {"inputs": [{"name": "a", "datatype": "STRING"}]}},
        {"signature": {"inputs": [{"name": "a", "datatype": "FP64"}, {"name": "a", "datatype": "FP64"}]}},
        {"samples": [{"request": []}]},
    ],
)
def test_a_wrong_manifest_is_refused(fields):
    with pytest.raises(ValueError, match=r"manifest\.json"):
        parse(**fields)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{", b"[" * 100_000, b"null"])
def test_what_is_no_manifest_is_refused(content):
    with pytest.raises(ValueError, match=r"manifest\.json"):
        parse_manifest(content)


def test_the_main_file_is_the_only_one_of_its_kind():
    files = {"a.joblib": b"1", "b.joblib": b"2", "notes.txt": b"3"}
    manifest = parse_manifest(json.dumps(manifest_of(files)).encode())
    with pytest.raises(ValueError, match="found 2"):
        manifest.main_file(".joblib")
    with pytest.raises(ValueError, match="found 0"):
        manifest.main_file(".onnx")
    assert manifest.main_file(".txt") == "notes.txt"
