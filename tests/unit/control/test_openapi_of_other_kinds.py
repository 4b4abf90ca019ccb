"""The OpenAPI document describes servers of other kinds as what they are: they take no instances."""

from typing import Any

import pytest

from gateway.control.openapi import openapi
from gateway.core.model import Backend, Model, Tensor

X = Tensor(name="x", datatype="FP32", shape=(-1, 2))


def media_of(**backend: Any) -> dict[str, Any]:
    listed = Backend(version="1", url="http://x", **backend)
    document = openapi([Model(name="wine", backends=(listed,), traffic={"1": 100})])
    taken = document["paths"]["/wine"]["post"]["requestBody"]["content"]["application/json"]
    assert ("wine.instance" in document["components"]["schemas"]) == ("properties" in taken["schema"])
    return taken  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("backend", "example"),
    [
        ({"platform": "MLflow 3.17.0", "predict_path": "/invocations"}, None),
        ({"platform": "vetiver", "inputs": (X,)}, None),
        ({"predict_path": "/score"}, None),
        (
            {"platform": "Triton", "predict_path": "/v2/models/wine/infer", "inputs": (X,)},
            {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 1.0]}]},
        ),
    ],
)
def test_servers_of_other_kinds(backend: dict[str, Any], example: Any):
    media = media_of(**backend)
    assert (media["schema"], media.get("example")) == ({}, example)


@pytest.mark.parametrize(
    "backend", [{}, {"platform": "sklearn_joblib", "predict_path": "/custom"}, {"platform": "python"}]
)
def test_ours_take_instances(backend: dict[str, Any]):
    media = media_of(inputs=(Tensor(name="a", datatype="FP64"),), **backend)
    assert media["example"] == {"instances": [{"a": 1.0}]}
