"""The models that every server of `benchmarks.backends.alternatives` serves, and their requests in each protocol."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WIDTH, WIDE = 8, 100
NUMBERS = [f"x{at}" for at in range(WIDTH)]
COLOURS, SHAPES = ("red", "green", "blue"), ("round", "square")
KINDS = ("numbers", "mixed", "onnx", "wide")


class Served(NamedTuple):
    """One model, as a file and as an artifact."""

    kind: str
    file: Path
    artifact: Path


class Asked(NamedTuple):
    """One request: its body, its header lines, and the labels that its answer must hold."""

    body: bytes
    headers: dict[str, str]
    labels: list[int]


def make(folder: Path) -> dict[str, Served]:
    """Train the models and write them to `folder`."""
    import joblib
    import pandas as pd
    from skl2onnx import to_onnx
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers, colours, shapes = rows(500)
    labels = (numbers[:, 0] + numbers[:, 1] + (colours == "red") > 0).astype(np.int64)
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, labels)
    frame = pd.DataFrame(numbers, columns=NUMBERS).assign(colour=colours, shape=shapes)
    split = make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(), ["colour", "shape"]))
    mixed = make_pipeline(split, LogisticRegression()).fit(frame, labels)
    many = rows(500, WIDE)[0]
    wide = make_pipeline(StandardScaler(), LogisticRegression()).fit(many, (many[:, 0] > 0).astype(np.int64))
    files = {name: folder / f"{name}.joblib" for name in ("numbers", "mixed", "wide")}
    joblib.dump(wide, files["wide"])
    joblib.dump(plain, files["numbers"])
    joblib.dump(mixed, files["mixed"])
    files["onnx"] = folder / "numbers.onnx"
    files["onnx"].write_bytes(to_onnx(plain, numbers[:1].astype(np.float32)).SerializeToString())
    return {kind: Served(kind, file, _artifact(folder / kind, kind, file)) for kind, file in files.items()}


def _artifact(folder: Path, kind: str, file: Path) -> Path:
    from chips_backend.testing import write_artifact

    datatype = "FP32" if kind == "onnx" else "FP64"
    inputs = [{"name": f"x{at}", "datatype": datatype} for at in range(width_of(kind))]
    if kind == "mixed":
        inputs += [{"name": "colour", "datatype": "BYTES"}, {"name": "shape", "datatype": "BYTES"}]
    return write_artifact(
        folder,
        {file.name: file.read_bytes()},
        model="m",
        format="onnx" if kind == "onnx" else "joblib",
        signature={"inputs": inputs, "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}]},
        samples=[
            {"request": {"instances": instances(kind, 3)}, "response": {"predictions": labels(file, kind, 3)}}
        ],
    )


def rows(count: int, width: int = WIDTH) -> tuple[Any, Any, Any]:
    """Numbers with six digits, as measurements have them, and two texts for each row."""
    random = np.random.default_rng(count)
    return (
        random.normal(size=(count, width)).round(6),
        random.choice(COLOURS, count),
        random.choice(SHAPES, count),
    )


def width_of(kind: str) -> int:
    return WIDE if kind == "wide" else WIDTH


def instances(kind: str, count: int) -> list[Any]:
    numbers, colours, shapes = rows(count, width_of(kind))
    if kind != "mixed":
        listed: list[Any] = numbers.tolist()
        return listed
    return [
        dict(zip([*NUMBERS, "colour", "shape"], [*row, str(colour), str(shape)], strict=True))
        for row, colour, shape in zip(numbers.tolist(), colours, shapes, strict=True)
    ]


def labels(file: Path, kind: str, count: int) -> list[int]:
    """What the model itself says."""
    numbers, colours, shapes = rows(count, width_of(kind))
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        feed = {session.get_inputs()[0].name: numbers.astype(np.float32)}
        return [int(label) for label in session.run(None, feed)[0]]
    import joblib
    import pandas as pd

    model = joblib.load(file)
    table = numbers
    if kind == "mixed":
        table = pd.DataFrame(numbers, columns=NUMBERS).assign(colour=colours, shape=shapes)
    return [int(label) for label in model.predict(table)]


def ask(served: Served, protocol: str, count: int) -> Asked:
    """A request of `count` rows. "v2p" is v2 in JSON with the hints that MLServer's codec for DataFrames needs."""
    wanted = labels(served.file, served.kind, count)
    in_json = {"Content-Type": "application/json"}
    if protocol in {"v1", "inputs", "dataframe_records"}:
        name = "instances" if protocol == "v1" else protocol
        return Asked(json.dumps({name: instances(served.kind, count)}).encode(), in_json, wanted)
    tensors, behind = _tensors(served.kind, count, is_binary=protocol == "binary")
    content: dict[str, Any] = {"inputs": tensors}
    if protocol == "v2p":
        content["parameters"] = {"content_type": "pd"}
    if protocol != "binary":
        return Asked(json.dumps(content).encode(), in_json, wanted)
    return ask_in_binary(tensors, behind, wanted)


def ask_in_binary(tensors: list[dict[str, Any]], behind: bytes, wanted: list[int]) -> Asked:
    """A request whose tensors' bytes stand behind the JSON, and that asks for the same of the answer."""
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    fields = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Asked(head + behind, fields, wanted)


def _tensors(kind: str, count: int, *, is_binary: bool) -> tuple[list[dict[str, Any]], bytes]:
    numbers, colours, shapes = rows(count, width_of(kind))
    datatype, dtype = ("FP32", np.float32) if kind == "onnx" else ("FP64", np.float64)
    arrays: list[tuple[str, str, list[int], Any]] = [
        ("predict", datatype, [count, width_of(kind)], numbers.astype(dtype))
    ]
    if kind == "mixed":
        arrays = [(name, "FP64", [count], numbers[:, at]) for at, name in enumerate(NUMBERS)]
        arrays += [("colour", "BYTES", [count], colours), ("shape", "BYTES", [count], shapes)]
    tensors, contents = [], []
    for name, kind_of_value, shape, array in arrays:
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": kind_of_value}
        if is_binary:
            content = array.tobytes() if kind_of_value != "BYTES" else _texts(array)
            tensor["parameters"] = {"binary_data_size": len(content)}
            contents.append(content)
        else:
            # The shortest text that is the same number of that size, as any client writes it.
            tensor["data"] = [
                float(str(value)) if kind_of_value != "BYTES" else str(value) for value in array.ravel()
            ]
            if kind_of_value == "BYTES":
                tensor["parameters"] = {"content_type": "str"}
        tensors.append(tensor)
    return tensors, b"".join(contents)


def _texts(values: Any) -> bytes:
    encoded = [str(value).encode() for value in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def labels_in(answer: bytes, length: str | None) -> list[int]:
    """The labels of an answer in any of the protocols; `length` is the header that says where the JSON ends."""
    head = int(length) if length else len(answer)
    content = json.loads(answer[:head])
    if isinstance(content, list):
        return [int(label) for label in content]
    if "predictions" in content:
        found = content["predictions"]
        if isinstance(found, dict):  # MLflow's, for ONNX: the outputs by name
            found = found["output_label"]
        return [int(label) for label in found]
    output = content["outputs"][0]
    if "data" in output:
        return [int(label) for label in np.ravel(output["data"])]
    dtype = {"INT64": "<i8", "INT32": "<i4", "FP64": "<f8"}[output["datatype"]]
    return [int(label) for label in np.frombuffer(answer[head:], dtype)]
