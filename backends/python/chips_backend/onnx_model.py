"""ONNX models: what their inputs take, their outputs by name, their class labels."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from chips_backend.boosters import threads
from chips_backend.column_block import Block
from chips_backend.input_tables import Table, array_table
from chips_backend.manifest import Manifest, Signature, Tensor
from chips_backend.model import Model, Refused, Rows
from chips_backend.wrong_files import WrongArtifact

_DTYPES: Final = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(string)": np.object_,
}  # fmt: skip
_DATATYPES: Final = {
    "tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16",
    "tensor(int64)": "INT64", "tensor(int32)": "INT32", "tensor(bool)": "BOOL", "tensor(string)": "BYTES",
}  # fmt: skip


def load_onnx(path: Path, manifest: Manifest) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  (it has a dozen of its own, with no common base)
        raise WrongArtifact(
            f"{path.name} cannot be read by ONNX Runtime {onnxruntime.__version__}: {error}"
        ) from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    signature = manifest.signature
    if not signature.inputs:
        signature = msgspec.structs.replace(signature, inputs=tuple(_own_inputs(inputs)))
    names = [output.name for output in outputs]
    declared = [tensor.name for tensor in signature.outputs]
    if len(declared) > 1 and not set(declared) <= set(names):
        raise WrongArtifact(
            f"the signature's outputs are {', '.join(declared)}, but those of the model are {', '.join(names)}"
        )
    answered = (
        declared if len(declared) > 1 else [declared[0] if declared and declared[0] in names else names[0]]
    )
    is_flat = not declared or all(len(tensor.shape) == 1 for tensor in signature.outputs)
    probabilities = _probabilities(outputs)

    def predict(feed: dict[str, Any], parameters: dict[str, Any]) -> Any:
        if parameters.get("probabilities") and probabilities is None:
            raise Refused("this model has no probabilities")
        if parameters.get("probabilities"):
            result = session.run([probabilities], feed)[0]
            return [list(row.values()) for row in result] if isinstance(result, list) else result
        results = [_flat(result) if is_flat else result for result in session.run(answered, feed)]
        return dict(zip(answered, results, strict=True)) if len(answered) > 1 else results[0]

    feed = _feed(inputs, signature)
    one_by_one = [given.name for given in inputs if given.shape and given.shape[0] == 1]
    table: Table = feed
    run: Callable[[Any, dict[str, Any]], Any] = predict
    if one_by_one:  # it was exported for one row at a time
        table = lambda rows: _singly(feed(rows), len(rows))  # noqa: E731
        run = lambda feeds, parameters: _joined([predict(each, parameters) for each in feeds])  # noqa: E731
    known = {} if probabilities is None else {"probabilities": bool}
    return Model(table, run, parameters=known, signature=signature)


def _singly(columns: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [{name: column[at : at + 1] for name, column in columns.items()} for at in range(count)]


def _joined(answers: Sequence[Any]) -> Any:
    if answers and isinstance(answers[0], dict):
        return {name: [row for answer in answers for row in answer[name]] for name in answers[0]}
    return [row for answer in answers for row in answer]


def _flat(result: Any) -> Any:
    """A regression's answer is [rows, 1] in ONNX, and one number for each row everywhere else."""
    return result.ravel() if getattr(result, "ndim", 1) == 2 and result.shape[1] == 1 else result


def _probabilities(outputs: Sequence[Any]) -> str | None:
    """The output that holds probabilities: a classifier's second one, a map by label or an array of numbers."""
    if len(outputs) != 2 or not outputs[0].type.startswith(("tensor(int64)", "tensor(string)")):
        return None
    kind = outputs[1].type
    return str(outputs[1].name) if kind.startswith(("seq(map(", "tensor(float)", "tensor(double)")) else None


def _own_inputs(inputs: Sequence[Any]) -> Iterator[Tensor]:
    if len(inputs) == 1 and len(inputs[0].shape) == 2 and isinstance(inputs[0].shape[1], int):
        for at in range(inputs[0].shape[1]):
            yield Tensor(name=f"x{at}", datatype=_DATATYPES.get(inputs[0].type, "FP64"))
        return
    for given in inputs:
        inner = [size if isinstance(size, int) else -1 for size in given.shape[1:]]
        shape = (-1,) if inner in ([], [1]) else (-1, *inner)
        yield Tensor(name=given.name, datatype=_DATATYPES.get(given.type, "FP64"), shape=shape)


def _feed(inputs: Sequence[Any], signature: Signature) -> Table:
    """Rows as what the session is fed with: one table for a single input, else a column by name for each."""
    unknown = [f"{given.name}: {given.type}" for given in inputs if given.type not in _DTYPES]
    if unknown:
        raise WrongArtifact(f"inputs of this kind need code of their own in predict.py: {', '.join(unknown)}")
    if len(inputs) == 1:
        for tensor in signature.inputs:
            _check_kind(tensor, inputs[0])
        table = array_table(signature, _DTYPES[inputs[0].type])
        return lambda rows: {inputs[0].name: table(rows)}
    places = {tensor.name: at for at, tensor in enumerate(signature.inputs)}
    missing = [given.name for given in inputs if given.name not in places]
    if missing:
        raise WrongArtifact(f"the signature lacks the model's inputs {', '.join(missing)}")
    for given in inputs:
        _check_kind(signature.inputs[places[given.name]], given)

    def feed(rows: Rows) -> dict[str, Any]:
        columns = {}
        for given in inputs:
            at = places[given.name]
            one = Signature(inputs=(signature.inputs[at],))
            values: Rows = (
                Block([rows.column(at)]) if isinstance(rows, Block) else [[row[at]] for row in rows]
            )
            column = array_table(one, _DTYPES[given.type])(values)
            rank = len(given.shape)
            columns[given.name] = column.reshape(-1) if rank == 1 and column.ndim == 2 else column
        return columns

    return feed


def _check_kind(tensor: Tensor, given: Any) -> None:
    """NumPy would cut a fraction off and take any number for true: what does not fit must not be declared."""
    kind, wanted = tensor.datatype, _DTYPES[given.type]
    fits = (
        kind == "BYTES" if wanted is np.object_
        else kind == "BOOL" if wanted is np.bool_
        else "INT" in kind or kind == "BOOL" if np.issubdtype(wanted, np.integer)
        else kind != "BYTES"
    )  # fmt: skip
    if not fits:
        raise WrongArtifact(
            f"the model's input {given.name} is {given.type}, so {tensor.name} cannot be {kind} in the signature: "
            f"say {_DATATYPES[given.type]}"
        )
