"""What `chips deploy` says of inputs that a new version has otherwise."""

import pytest

from gateway.cli.deployment.input_signature_changes import _differences
from gateway.core.model import Tensor


def inputs(**datatypes: str) -> list[Tensor]:
    return [Tensor(name=name, datatype=datatype, shape=(-1,)) for name, datatype in datatypes.items()]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (inputs(a="FP64", b="BYTES"), []),
        (
            inputs(b="BYTES", a="FP64"),
            ["the inputs have another order, which matters to rows that are arrays"],
        ),
        (inputs(a="FP64"), ["inputs that are gone: b"]),
        (inputs(a="FP64", b="BYTES", c="BOOL"), ["new inputs: c"]),
        (
            inputs(a="INT64", c="BYTES"),
            ["inputs that are gone: b", "new inputs: c", "inputs of another datatype: a (FP64 → INT64)"],
        ),
    ],
)
def test_differences(after: list[Tensor], said: list[str]):
    assert _differences(inputs(a="FP64", b="BYTES"), after) == said
