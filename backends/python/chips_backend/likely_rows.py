"""Make rows that a model is likely to take, to try it where nobody has published samples."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from chips_backend.manifest import Signature, Tensor
from chips_backend.model import Row

_TEXTS: Final = ("", "a", "0", "2000-01-01")
_NUMBERS: Final = (0, 1)


def likely_rows(signature: Signature, examples: Sequence[Row] = ()) -> Iterator[Row]:
    """Rows that the model is likely to accept: `examples` first, then zeros and ones with several texts and first categories."""
    yield from examples
    if not signature.inputs:
        yield []
        return
    has_text = any(tensor.datatype == "BYTES" and tensor.categories is None for tensor in signature.inputs)
    for number in _NUMBERS:
        for text in _TEXTS if has_text else _TEXTS[:1]:
            yield [_likely(tensor, 1, number, text) for tensor in signature.inputs]


def _likely(tensor: Tensor, dimension: int, number: int, text: str) -> Any:
    if dimension < len(tensor.shape):
        return [_likely(tensor, dimension + 1, number, text) for _ in range(abs(tensor.shape[dimension]))]
    if tensor.categories is not None:
        return tensor.categories[0]
    if tensor.datatype == "BYTES":
        return text
    if tensor.datatype == "BOOL":
        return bool(number)
    return float(number) if tensor.datatype.startswith("FP") else number
