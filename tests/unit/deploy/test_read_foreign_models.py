"""Models of MLflow, vetiver and Hugging Face, read as files: nothing of them is loaded. tests/e2e/test_imports.py has real ones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gateway.deploy.read_foreign_models import (
    CannotImport,
    ForeignModel,
    read_huggingface,
    read_mlflow,
    read_python_vetiver,
    write_imported_artifact,
)
from tests.unit.cli.shell import Shell

EVIL = b"cposix\nsystem\n(S'touch ran'\ntR."
COLUMNS = [
    {"type": "long", "name": "age", "required": True},
    {"type": "string", "name": "plan", "required": False},
    {"type": "datetime", "name": "when"},
    {"type": "array", "items": {"type": "float"}, "name": "scores"},
]


def mlflow(folder: Path, inputs: object, example: object = None, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    described = {
        "flavors": {
            "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.pkl"},
            "sklearn": {},
        },
        "signature": {"inputs": json.dumps(inputs), "outputs": "[]", "params": None},
        "saved_input_example_info": {"artifact_path": "input_example.json"} if example is not None else None,
        **changes,
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    (folder / "model.pkl").write_bytes(EVIL)
    (folder / "requirements.txt").write_text("mlflow==3.1.0\n\nscikit-learn==1.7.0")
    if example is not None:
        (folder / "input_example.json").write_text(json.dumps(example))
    return folder


def test_mlflows_columns(tmp_path: Path):
    rows = [[20, "a", "2026-01-01T00:00:00", [1.0, 2.0]], [30, None, "2026-01-02T00:00:00", []]]
    example = {"columns": ["age", "plan", "when", "scores"], "data": rows}
    model = read_mlflow(mlflow(tmp_path / "churn", COLUMNS, example))
    assert [(one["name"], one["datatype"], one["shape"]) for one in model.inputs] == [
        ("age", "INT64", [-1]), ("plan", "BYTES", [-1]), ("when", "BYTES", [-1]), ("scores", "FP32", [-1, -1]),
    ]  # fmt: skip
    assert model.examples[0] == {"age": 20, "plan": "a", "when": "2026-01-01T00:00:00", "scores": [1.0, 2.0]}
    assert model.requirements == ["mlflow==3.1.0", "scikit-learn==1.7.0"]
    assert {name for name, _ in model.files} == {
        "mlflow/MLmodel", "mlflow/model.pkl", "mlflow/requirements.txt", "mlflow/input_example.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tensor", "example", "inputs", "first"),
    [
        ({"dtype": "float64", "shape": [-1, 3]}, [[1.0, 2.0, 3.0]], [("x0", "FP64", [-1]), ("x1", "FP64", [-1]), ("x2", "FP64", [-1])], {"x0": 1.0, "x1": 2.0, "x2": 3.0}),
        ({"dtype": "uint8", "shape": [-1, 2, 2]}, [[[1, 2], [3, 4]]], [("x", "UINT8", [-1, 2, 2])], {"x": [[1, 2], [3, 4]]}),
    ],
)  # fmt: skip
def test_mlflows_tensors(tensor: object, example: object, inputs: object, first: object, tmp_path: Path):
    model = read_mlflow(mlflow(tmp_path / "m", [{"type": "tensor", "tensor-spec": tensor}], example))
    assert [(one["name"], one["datatype"], one["shape"]) for one in model.inputs] == inputs
    assert model.examples == [first]


ROW = {"age": 20, "plan": "a", "when": "2026-01-01", "scores": [1.0]}


@pytest.mark.parametrize(
    ("example", "info"),
    [
        ({"inputs": {"columns": list(ROW), "data": [list(ROW.values())]}, "params": {"top": 3}}, {"example_params": "true"}),
        ({"inputs": [ROW]}, {"type": "ndarray", "format": "tf-serving"}),
        ({name: [value] for name, value in ROW.items()}, {"type": "ndarray"}),
        (ROW, {"type": "json_object"}),
        ([ROW], {"type": "json_object"}),
        ({"data": [list(ROW.values())]}, {"type": "dataframe", "pandas_orient": "values"}),
    ],
    ids=["with parameters", "older releases", "arrays by name", "one row", "rows", "no names"],
)  # fmt: skip
def test_every_form_of_mlflows_example(example: object, info: dict[str, object], tmp_path: Path):
    given = {"artifact_path": "input_example.json", **info}
    folder = mlflow(tmp_path / "m", COLUMNS, example, saved_input_example_info=given)
    assert read_mlflow(folder).examples == [ROW]


def test_a_sparse_example(tmp_path: Path):
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]
    matrix = {"data": [1.5, 2.5], "indices": [2, 0], "indptr": [0, 1, 2], "shape": [2, 3]}
    given = {"artifact_path": "input_example.json", "type": "sparse_matrix_csr"}
    model = read_mlflow(mlflow(tmp_path / "m", tensor, matrix, saved_input_example_info=given))
    assert model.examples == [{"x0": 0.0, "x1": 0.0, "x2": 1.5}, {"x0": 2.5, "x1": 0.0, "x2": 0.0}]


def test_requirements_that_stand_in_files_of_their_own(tmp_path: Path):
    folder = mlflow(tmp_path / "m", COLUMNS)
    (folder / "requirements.txt").write_text(
        "mlflow==3.1.0 \\\n  --hash=sha256:00\n# ours\n-c constraints.txt\n"
    )
    (folder / "constraints.txt").write_text("numpy<3\n-r requirements.txt\n")
    assert read_mlflow(folder).requirements[:2] == ["mlflow==3.1.0    --hash=sha256:00", "numpy<3"]


def test_files_that_are_not_the_models_own_are_not_taken(tmp_path: Path):
    (tmp_path / "secret").write_text("numpy")
    folder = mlflow(tmp_path / "m", COLUMNS)
    (folder / "requirements.txt").write_text("-r ../secret\n")
    with pytest.raises(CannotImport, match=r"names the file '\.\./secret'"):
        read_mlflow(folder)
    place = pin(tmp_path / "p", {"a": 1.0})
    (place / "data.txt").write_text((place / "data.txt").read_text().replace("prices.joblib", "../secret"))
    with pytest.raises(CannotImport, match=r"names the file '\.\./secret'"):
        read_python_vetiver(place)


def test_an_example_of_other_columns_is_not_taken(tmp_path: Path):
    example = {"columns": ["age", "other"], "data": [[1, 2]]}
    assert read_mlflow(mlflow(tmp_path / "m", COLUMNS, example)).examples == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"signature": None}, "no signature.*input_example="),
        ({"flavors": {"spark": {}}}, "flavours spark; python_function is needed"),
        ({"signature": {"inputs": json.dumps([{"type": "object", "name": "o", "properties": {}}])}}, "o is of MLflow's type object"),
        ({"signature": {"inputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "complex128", "shape": [-1]}}])}}, "complex128"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_says_why(changes: dict[str, object], why: str, tmp_path: Path):
    with pytest.raises(CannotImport, match=why):
        read_mlflow(mlflow(tmp_path / "m", COLUMNS, **changes))


def pin(folder: Path, prototype: object, kind: str = "joblib") -> Path:
    folder.mkdir(parents=True)
    meta = {"prototype": json.dumps(prototype) if prototype else None, "required_pkgs": ["scikit-learn"]}
    described = {"file": "prices.joblib", "type": kind, "user": {"vetiver_meta": meta}}
    (folder / "data.txt").write_text(yaml.safe_dump(described))
    (folder / "prices.joblib").write_bytes(EVIL)
    return folder


def test_the_newest_version_of_a_pin(tmp_path: Path):
    pin(tmp_path / "prices/20260101T000000Z-aaaaa", {"old": 1.0})
    pin(tmp_path / "prices/20260201T000000Z-bbbbb", {"age": 20.0, "rooms": 2, "town": "x", "new": True})
    model = read_python_vetiver(tmp_path / "prices")
    assert [(one["name"], one["datatype"]) for one in model.inputs] == [
        ("age", "FP64"), ("rooms", "INT64"), ("town", "BYTES"), ("new", "BOOL"),
    ]  # fmt: skip
    assert (model.name, model.format, model.requirements) == ("prices", "joblib", ["scikit-learn"])
    assert [
        one["name"] for one in read_python_vetiver(tmp_path / "prices/20260101T000000Z-aaaaa").inputs
    ] == ["old"]


@pytest.mark.parametrize(
    ("prototype", "kind", "why"),
    [
        (None, "joblib", "prototype_data="),
        ({"a": 1}, "rds", "chips_save"),
        ({"a": None}, "joblib", "a is None"),
    ],
)
def test_pins_that_cannot_be_imported(prototype: object, kind: str, why: str, tmp_path: Path):
    with pytest.raises(CannotImport, match=why):
        read_python_vetiver(pin(tmp_path / "p", prototype, kind))


def huggingface(folder: Path, **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "transformers_version": "5.0.0", **config})
    )
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_folder_of_hugging_face(tmp_path: Path):
    model = read_huggingface(
        huggingface(tmp_path / "sentiment", architectures=["BertForSequenceClassification"])
    )
    assert [(one["name"], one["datatype"]) for one in model.inputs] == [("text", "BYTES")]
    assert model.requirements == ["transformers>=5.0.0", "torch"]
    with pytest.raises(CannotImport, match="code of its own"):
        read_huggingface(huggingface(tmp_path / "own", auto_map={"AutoModel": "own.Own"}))
    for head in ("BertForTokenClassification", "GPT2LMHeadModel"):
        with pytest.raises(CannotImport, match=f"is a {head}, and only text classification"):
            read_huggingface(huggingface(tmp_path / head, architectures=[head]))
    assert (
        read_huggingface(huggingface(tmp_path / "masked", architectures=["BertForMaskedLM"])).name == "masked"
    )
    (tmp_path / "sentiment/tokenizer.json").unlink()
    with pytest.raises(CannotImport, match=r"tokenizer\.save_pretrained"):
        read_huggingface(tmp_path / "sentiment")


@pytest.mark.parametrize(
    ("scheme", "read", "make"),
    [
        ("mlflow", read_mlflow, lambda folder: mlflow(folder, COLUMNS)),
        ("vetiver", read_python_vetiver, lambda folder: pin(folder, {"a": 1.0})),
    ],
)
def test_a_model_is_copied_and_never_loaded_here(
    scheme: str, read: Callable[[Path], ForeignModel], make: Callable[[Path], Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    folder = make(tmp_path / "given")
    write_imported_artifact(
        read(folder),
        tmp_path / "trained",
        Path(__file__).parents[3] / "gateway/cli/scaffold/import_templates",
    )
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.ok("import-model", f"{scheme}:{folder}", "--name", "evil", "--no-samples")
    assert EVIL in [
        path.read_bytes() for path in (tmp_path / "models/evil/trained").rglob("*") if path.is_file()
    ]
    assert not list(tmp_path.rglob("ran"))
    assert 'model = "evil"' in (tmp_path / "models/evil/backend.toml").read_text()
    again = shell("import-model", f"{scheme}:{folder}", "--name", "evil", "--no-samples")
    assert again.code == 65
    assert "not empty" in again.err


def test_words_that_do_not_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shell = Shell(tmp_path, monkeypatch, capsys)
    assert "chips import-model mlflow:models:/churn/3" in shell("import", "mlflow:models:/churn/3").err
    assert "mlflow:PATH, vetiver:PATH, hf:PATH" in shell("import-model", "churn.yaml").err
    assert "there is no folder" in shell("import-model", "hf:nowhere").err
