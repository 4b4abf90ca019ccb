"""Read models that MLflow, vetiver or Hugging Face saved, to import them.

Signature, example and packages come from the files alone. Nothing of them is loaded.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

_DATATYPES: Final[Mapping[str, str]] = {
    "long": "INT64", "integer": "INT32", "double": "FP64", "float": "FP32", "boolean": "BOOL", "string": "BYTES", "datetime": "BYTES",
}  # fmt: skip
_NUMPY: Final[Mapping[str, str]] = {
    "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "str": "BYTES", "object": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_MOST_EXAMPLES: Final = 5
# Heads of transformers' models whose answers are neither labels of a text nor its features.
_OTHER_HEADS: Final = (
    *("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction"),
    *(
        "ForCausalLM",
        "LMHeadModel",
        "ForConditionalGeneration",
        "ForImageClassification",
        "ForAudioClassification",
    ),
)
_PYTHON: Final = "python"


class CannotImport(Exception):
    """The model cannot be imported. The text says why and what to do."""


class ForeignModel(NamedTuple):
    """A model that another tool saved.

    `files`: path in the artifact -> file. `code`: the template of its model.py, if it needs one.
    """

    name: str
    format: str
    files: Sequence[tuple[str, Path]]
    inputs: Sequence[Mapping[str, Any]]
    examples: Sequence[Any]
    requirements: Sequence[str]
    code: str = ""


def read_mlflow(folder: Path, name: str = "") -> ForeignModel:
    """Read a model that MLflow saved.

    `folder` has a file MLmodel (https://mlflow.org/docs/latest/ml/model/). Every flavour is served by its
    pyfunc.
    """
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CannotImport(f"{folder} is no MLflow model: it has no file MLmodel") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CannotImport(f"{folder / 'MLmodel'} cannot be read: {error}") from None
    flavors = described.get("flavors") if isinstance(described, dict) else None
    if not isinstance(flavors, dict) or "python_function" not in flavors:
        raise CannotImport(
            f"the model has the flavours {', '.join(flavors or ()) or 'none'}; python_function is needed"
        )
    signature = described.get("signature") or {}
    if not signature.get("inputs"):
        raise CannotImport(
            "the model has no signature, so nobody knows what goes in: log it again with input_example=, "
            "or save it with chips_backend.save"
        )
    inputs = [_mlflow_input(one) for one in json.loads(signature["inputs"])]
    tensor = _table_of_tensor(json.loads(signature["inputs"]))
    return ForeignModel(
        name or folder.name,
        _PYTHON,
        [(f"mlflow/{path.relative_to(folder).as_posix()}", path) for path in _all_files(folder)],
        tensor or inputs,
        _mlflow_examples(
            folder, described.get("saved_input_example_info") or {}, [one["name"] for one in tensor or inputs]
        ),
        _requirements(folder / "requirements.txt"),
        "mlflow.py",
    )


def _mlflow_input(one: Mapping[str, Any]) -> dict[str, Any]:
    name = str(one.get("name", "x"))
    if one["type"] == "tensor":
        spec = one["tensor-spec"]
        if spec["dtype"] not in _NUMPY:
            raise CannotImport(f"the input {name} has the dtype {spec['dtype']}, which no datatype describes")
        return {"name": name, "datatype": _NUMPY[spec["dtype"]], "shape": [-1, *spec["shape"][1:]]}
    kind, shape = one["type"], [-1]
    while kind == "array":
        kind = (one := one["items"])["type"]
        shape.append(-1)
    if kind not in _DATATYPES:
        raise CannotImport(
            f"the input {name} is of MLflow's type {kind}, which no datatype describes: log the model with plain columns"
        )
    return {"name": name, "datatype": _DATATYPES[kind], "shape": shape}


def _table_of_tensor(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """One tensor without a name, of a fixed number of values a row, is a table of so many columns."""
    if len(inputs) != 1 or inputs[0]["type"] != "tensor" or "name" in inputs[0]:
        return None
    shape, dtype = inputs[0]["tensor-spec"]["shape"], inputs[0]["tensor-spec"]["dtype"]
    if len(shape) != 2 or shape[1] < 1 or dtype not in _NUMPY:
        return None
    return [{"name": f"x{at}", "datatype": _NUMPY[dtype], "shape": [-1]} for at in range(shape[1])]


def _mlflow_examples(folder: Path, info: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """The rows of the input example, in each form that MLflow writes: a table, arrays, values by name, a sparse matrix."""
    if not info.get("artifact_path"):
        return []
    content = _json(_inside(folder, str(info["artifact_path"])))
    if (
        isinstance(content, dict)
        and "inputs" in content
        and set(content) <= {"inputs", "params"} - set(names)
    ):
        content = content["inputs"]  # with parameters, and in releases before 2.10
    rows = _example_rows(content, names, str(info.get("type")))
    return rows[:_MOST_EXAMPLES] if all(set(row) == set(names) for row in rows) else []


def _example_rows(content: Any, names: Sequence[str], kind: str) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return [_example_row(row, names) for row in content]
    if not isinstance(content, dict):
        return []
    if kind == "sparse_matrix_csr":
        return [_example_row(row, names) for row in _sparse_rows(content)]
    if isinstance(content.get("data"), list) and set(content) != set(names):
        columns = content.get("columns") or names
        return [dict(zip(columns, row, strict=True)) for row in content["data"]]
    if kind == "ndarray":  # an array for each input
        return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=False)]
    return [content]


def _example_row(row: Any, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    if len(names) == 1:
        return {names[0]: row}
    return dict(zip(names, row, strict=False)) if isinstance(row, list) and len(row) == len(names) else {}


def _sparse_rows(content: Mapping[str, Any]) -> list[list[float]]:
    """The rows of a matrix in compressed sparse row format (`scipy.sparse.csr_matrix`)."""
    rows = []
    for first, last in pairwise(content["indptr"]):
        row = [0.0] * content["shape"][1]
        for at in range(first, last):
            row[content["indices"][at]] = content["data"][at]
        rows.append(row)
    return rows


def read_python_vetiver(folder: Path, name: str = "") -> ForeignModel:
    """Read a model that vetiver for Python saved in a pin.

    `folder` is a version of the pin; of a pin's folder, the newest version is read.
    """
    if not (folder / "data.txt").exists():
        versions = sorted(path.parent for path in folder.glob("*/data.txt"))
        if not versions:
            raise CannotImport(f"{folder} is no pin: neither it nor a folder in it has a file data.txt")
        folder = versions[-1]  # their names begin with the time
    try:
        described = yaml.safe_load((folder / "data.txt").read_text(encoding="utf-8"))
        user = described.get("user") or {}
        meta = user.get("vetiver_meta") or {}
        files, kind = described["file"], described["type"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError) as error:
        raise CannotImport(f"{folder / 'data.txt'} cannot be read: {error!r}") from None
    if kind != "joblib":
        raise CannotImport(
            f"the pin is of the type {kind}: vetiver for Python writes joblib. A pin of R: read it with vetiver_pin_read() "
            "in R, and save its model with chips_save()"
        )
    prototype = meta.get("prototype", user.get("ptype"))
    row = json.loads(prototype) if isinstance(prototype, str) else prototype
    if not isinstance(row, dict) or not row:
        raise CannotImport(
            "the pin has no prototype, so nobody knows what goes in: make the VetiverModel with prototype_data="
        )
    inputs = [{"name": key, "datatype": _like(key, value), "shape": [-1]} for key, value in row.items()]
    (file,) = [files] if isinstance(files, str) else files
    return ForeignModel(
        name or file.removesuffix(".joblib"),
        "joblib",
        [("model.joblib", _inside(folder, str(file)))],
        inputs,
        [row],
        [str(package) for package in meta.get("required_pkgs") or ()],
    )


def _like(name: str, value: Any) -> str:
    for kind, datatype in ((bool, "BOOL"), (int, "INT64"), (float, "FP64"), (str, "BYTES")):
        if isinstance(value, kind):
            return datatype
    raise CannotImport(f"the prototype's {name} is {value!r}, which no datatype describes")


def read_huggingface(folder: Path, name: str = "") -> ForeignModel:
    """Read a Hugging Face model.

    save_pretrained() wrote `folder`, with tokenizer. The task is text classification, or else feature
    extraction.
    """
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise CannotImport(f"{folder} is no Hugging Face model: it has no config.json with a model_type")
    if not any((folder / each).exists() for each in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise CannotImport(f"{folder} has no tokenizer: write it there with tokenizer.save_pretrained()")
    if list(folder.glob("*.py")) or config.get("auto_map"):
        raise CannotImport(
            f"{folder} brings code of its own, which transformers runs only where it is trusted: write a model.py that loads it"
        )
    other = [each for each in config.get("architectures") or () if str(each).endswith(_OTHER_HEADS)]
    if other:
        raise CannotImport(
            f"the model is a {other[0]}, and only text classification and feature extraction are imported: write a model.py that "
            "answers as it does, or run its own server, which chips register takes"
        )
    version = config.get("transformers_version")
    return ForeignModel(
        name or folder.name,
        _PYTHON,
        [(f"huggingface/{path.relative_to(folder).as_posix()}", path) for path in _all_files(folder)],
        [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        [{"text": "This is good."}, {"text": "I do not like it at all."}],
        [f"transformers>={version}" if version else "transformers", "torch"],
        "huggingface.py",
    )


READERS: Final = {"mlflow": read_mlflow, "vetiver": read_python_vetiver, "hf": read_huggingface}


def write_imported_artifact(model: ForeignModel, trained: Path, templates: Path) -> None:
    """Write the imported model as an artifact to `trained`.

    It writes the model's files, the code around them and the signature. `examples.json` is for
    chips_backend.complete_import, which adds the model's answers to them.
    """
    for name, source in model.files:
        target = trained / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    if model.code:
        shutil.copyfile(templates / model.code, trained / "model.py")
    (trained / "signature.json").write_text(
        json.dumps({"inputs": model.inputs, "outputs": []}, indent=2) + "\n"
    )
    if model.examples:
        (trained / "examples.json").write_text(json.dumps(model.examples, indent=2) + "\n")


def _all_files(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".git" not in path.parts]
    return [path for path in found if "__pycache__" not in path.parts]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _requirements(path: Path, depth: int = 5) -> list[str]:
    """The lines of a requirements file; those of files that it names with -r and -c, which lie next to it, take their place."""
    found: list[str] = []
    for line in _lines(path):
        option, _, name = line.partition(" ")
        if option in {"-r", "--requirement", "-c", "--constraint"}:
            found += _requirements(_inside(path.parent, name.strip()), depth - 1) if depth else []
        else:
            found.append(line)
    return found


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _inside(folder: Path, name: str) -> Path:
    """The file that a model names, which must lie in its folder: the folder is published. Raises CannotImport."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise CannotImport(f"the model names the file {name[:200]!r}, which is not in {folder}")
    return path
