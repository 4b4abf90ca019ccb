"""The same requests for every language: what each must answer, by status and code.

The model behind has three inputs, x (FP64), n (INT32) and k (INT64), and predicts 2x + 3n + k.
"""

import gzip
import json
from typing import Any, NamedTuple


class Case(NamedTuple):
    body: bytes
    status: int = 200
    code: str = ""
    path: str = "/predict"
    predictions: list[float] | None = None
    content_type: str = "application/json"
    method: str = "POST"
    fields: tuple[tuple[str, str], ...] = ()


INFER = "/v2/models/linear/infer"


def _j(value: Any) -> bytes:
    return json.dumps(value).encode()


def _rows(*rows: Any, **more: Any) -> bytes:
    return _j({"instances": rows, **more})


def _good(body: bytes, *predictions: float, path: str = "/predict", **more: Any) -> Case:
    return Case(body, predictions=list(predictions), path=path, **more)


def _tensor(name: str, data: Any, datatype: str = "FP64", shape: Any = None) -> dict[str, Any]:
    return {
        "name": name,
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": data,
    }


def _xnk(x: Any, n: Any, k: Any, **more: Any) -> bytes:
    tensors = [_tensor("x", x), _tensor("n", n, "INT32"), _tensor("k", k, "INT64")]
    return _j({"inputs": tensors, **more})


ROW = {"x": 1.5, "n": 2, "k": 3}

GOOD = [
    _good(_rows(ROW), 12.0),
    _good(_rows([1.5, 2, 3]), 12.0),
    _good(_rows(ROW, [0, 0, 0], {"k": 1, "n": 1, "x": 1}), 12.0, 0.0, 6.0),
    _good(_rows(), *[]),
    _good(_rows(*[[i, i, i] for i in range(500)]), *[6.0 * i for i in range(500)]),
    _good(_rows([1, 2, 3], parameters={}), 11.0),
    _good(_rows([1, 2, 3], parameters=None), 11.0),
    _good(_rows([1, 2.0, 3e3]), 3008.0),
    _good(b'{"instances": [[1, 2e0, 3]]}', 11.0),
    _good(b'{"instances": [[1, 2, 3e9]]}', 3000000008.0),
    _good(b'{"instances": [[1, 2, 3000000000.0]]}', 3000000008.0),
    _good(b' \r\n\t{"instances" : [ [ 1 , 2 , 3 ] ] }\n', 11.0),
    _good(b'{"instances": [[1e0, 2, 3]]}', 11.0),
    _good(b'{"instances": [[1E+0, 2, 3]]}', 11.0),
    _good(b'{"instances": [[10e-1, 2, 3]]}', 11.0),
    _good(b'{"instances": [[-0.0, -0, 0]]}', 0.0),
    _good(b'{"instances": [[1e-400, 0, 0]]}', 0.0),
    _good(b'{"instances": [[-1.5, -2, -3]]}', -12.0),
    _good(b'{"instances": [[0, 2147483647, 0]]}', 6442450941.0),
    _good(b'{"instances": [[0, 0, 2147483647]]}', 2147483647.0),
    _good(b'{"instances": [[0, 0, 2147483648]]}', 2147483648.0),
    _good(b'{"instances": [[0, 0, -2147483648]]}', -2147483648.0),
    _good(b'{"instances": [[0, 0, 9007199254740991]]}', 9007199254740991.0),
    _good(b'{"instances": [[9007199254740993, 0, 0]]}', 18014398509481984.0),
    _good(b'{"instances": [[123456789012345678901234567890, 0, 0]]}', 2.4691357802469136e29),
    _good(b'{"instances": [{"\\u0078": 1, "n": 2, "k": 3}]}', 11.0),
    _good(
        _xnk([1], [2], [3], id="@").replace(b"@", "üñï \U0001f600 \\ud83d\\ude00".encode()),
        11.0,
        path=INFER,
    ),
    _good(_xnk([1], [2], [3], id="@").replace(b"@", b"\\\\ud800 // [[[[ 1e400"), 11.0, path=INFER),
    _good(_rows([1, 2, 3]), 11.0, content_type="application/json; charset=utf-8"),
    _good(_rows([1, 2, 3]), 11.0, content_type="APPLICATION/JSON"),
    _good(_rows([1, 2, 3]), 11.0, content_type="application/vnd.chips+json"),
    _good(_rows([1, 2, 3]), 11.0, path="/predict?a=1&b=%00"),
    _good(_xnk([1.5], [2], [3]), 12.0, path=INFER),
    _good(_xnk([1.5, 0], [2, 0], [3, 0]), 12.0, 0.0, path=INFER),
    _good(_xnk([1, 2], [1, 2], [1, 2], id="a"), 6.0, 12.0, path=INFER),
    _good(_xnk([1], [1], [1], id=None), 6.0, path=INFER),
    _good(_xnk([1], [1], [1], id=""), 6.0, path=INFER),
    _good(
        _xnk([1], [1], [1], parameters={"content_type": "np", "binary_data_output": False}),
        6.0,
        path=INFER,
    ),
    _good(_xnk([1], [1.0], [1], model_name="linear", model_version="1"), 6.0, path=INFER),
    _good(_xnk([], [], []), path=INFER),
    _good(_xnk([1], [1], [1]), 6.0, path="/v2/models/linear/versions/1/infer"),
    _good(_xnk([1], [1], [1], outputs=[{"name": "y"}]), 6.0, path=INFER),
    _good(
        _j({"inputs": [_tensor("k", [3], "INT64"), _tensor("n", [2], "INT32"), _tensor("x", [1.5])]}),
        12.0,
        path=INFER,
    ),
    _good(
        _j({"inputs": [_tensor("x", [1]), _tensor("n", [1], "INT8"), _tensor("k", [1], "UINT64")]}),
        6.0,
        path=INFER,
    ),
    _good(
        _j(
            {
                "inputs": [
                    _tensor("x", [[1]], shape=[1, 1]),
                    _tensor("n", [[1]], "INT32", [1, 1]),
                    _tensor("k", [[1]], "INT64", [1, 1]),
                ]
            }
        ),
        6.0,
        path=INFER,
    ),
    _good(
        _j({"inputs": [_tensor("all", [1, 2, 3, 0, 0, 0], "INT64", [2, 3])]}),
        11.0,
        0.0,
        path=INFER,
    ),
    _good(
        _j({"inputs": [_tensor("all", [[1, 2, 3], [0, 0, 0]], "INT64", [2, 3])]}),
        11.0,
        0.0,
        path=INFER,
    ),
    _good(_j({"inputs": [_tensor("all", [], "FP64", [0, 3])]}), path=INFER),
    *(
        Case(b"", path=path, method=method)
        for method in ("GET", "HEAD")
        for path in (
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/linear",
            "/v2/models/linear/ready",
            "/v2/models/linear/versions/1",
            "/v2/models/linear/versions/1/ready",
            "/openapi.json",
        )
    ),
]


def _malformed(body: bytes, path: str = "/predict") -> Case:
    return Case(body, 400, "malformed-json", path)


def _invalid(body: bytes, path: str = "/predict") -> Case:
    return Case(body, 422, "invalid-instances", path)


def _twice(body: bytes, name: str, value: Any) -> bytes:
    """`body` with a member at the end of its outermost object."""
    return body[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}".encode()


# A name that stands twice in one object, wherever; also where something else is wrong.
TWICE = [
    *(
        _malformed(body)
        for body in (
            b'{"instances": [{"x": 9, "x": 1, "n": 2, "k": 3}]}',
            b'{"instances": [{"x": 1, "n": 2, "k": 3, "\\u0078": 1}]}',
            b'{"instances": [{"x": 1, "n": 2, "k": 3}, {"x": 1, "n": 2, "k": 3, "k": 3}]}',
            b'{"instances": [{"x": 1.0, "n": 2.0, "k": 3, "n": 2.0}]}',
            b'{"instances": [{"x": "a", "n": 2, "k": 3, "x": "a"}]}',
            b'{"instances": [9], "instances": [[1, 2, 3]]}',
            b'{"instances": [[1, 2, 3]], "instances": [[1, 2, 3]], "other": 1}',
            b'{"parameters": {}, "instances": [[1, 2, 3]], "parameters": {}}',
            b'{"instances": [[1, 2, 3]], "parameters": {"a": 1, "a": 1}}',
            b'{"instances": [[1, 2, 3]], "parameters": {"a": [{"": 1, "b": {}, "": 1}]}}',
            b'{"instances": [' + b"[true]," * 20 + b'{"x": 1, "x": 1}]}',
            _twice(_rows(*[[1, 2, 3]] * 2000), "instances", []),
        )
    ),
    *(
        _malformed(body, INFER)
        for body in (
            _twice(_xnk([1], [2], [3]), "inputs", []),
            _twice(_xnk([1], [2], [3], id="a"), "id", "a"),
            _twice(_xnk([1], [2], [3], model_name="a"), "model_name", "a"),
            _xnk([1], [2], [3]).replace(b'"data": [1]', b'"data": [1], "data": [1]'),
            _xnk([1], [2], [3]).replace(b'"shape": [1]', b'"shape": [1], "shape": [1]', 1),
            _xnk([1], [2], [3]).replace(b'"name": "x"', b'"name": "x", "name": "x"'),
            _xnk([1], [2], [3]).replace(b'"name": "x"', b'"name": "x", "parameters": {"a": 1, "a": 1}'),
            _xnk([1], [2], [3]).replace(b'"name": "x"', b'"name": "x", "more": 1, "more": 1'),
            _xnk([1], [2], [3], outputs=[{"name": "y"}]).replace(b'"name": "y"', b'"name": "y", "name": "y"'),
        )
    ),
]
BAD = [
    *TWICE,
    *map(
        _malformed,
        [
            b"",
            b" ",
            b"nul",
            b"{",
            b'{"instances": [[1, 2, 3]]',
            b'{"instances": [[1, 2, 3]]}}',
            b'{"instances": [[1, 2, 3]]} x',
            b'{"instances": [[1, 2, 3]]}\0',
            b'{"instances": [[1, 2, 3,]]}',
            b'{"instances": [[01, 2, 3]]}',
            b'{"instances": [[1., 2, 3]]}',
            b'{"instances": [[.5, 2, 3]]}',
            b'{"instances": [[+1, 2, 3]]}',
            b'{"instances": [[NaN, 2, 3]]}',
            b'{"instances": [[Infinity, 2, 3]]}',
            b'{"instances": [[-Infinity, 2, 3]]}',
            b'{"instances": [[1e400, 2, 3]]}',
            b'{"instances": [[0x1, 2, 3]]}',
            b"{'instances': []}",
            b"{instances: []}",
            b'{"instances": [] /* all */}',
            b'{"instances": []} // all',
            b'{"instances": ["\xff"]}',
            b'{"instances": ["\xed\xa0\x80"]}',
            b'{"instances": ["\\ud800"]}',
            b'{"instances": ["\\x41"]}',
            b'{"instances": ["a\nb"]}',
            b'\xef\xbb\xbf{"instances": []}',
            '{"instances": []}'.encode("utf-16"),
            b"[" * 30_000 + b"]" * 30_000,
            b'{"a":' * 5000 + b"1" + b"}" * 5000,
        ],
    ),
    _malformed(b"{", INFER),
    *map(
        _invalid,
        [
            b"[]",
            b"1",
            b"null",
            b'"x"',
            b"true",
            b"{}",
            _j({"instances": None}),
            _j({"instances": {}}),
            _j({"instances": "x"}),
            _j({"instances": 1}),
            _rows(None),
            _rows(1),
            _rows("x"),
            _rows(True),
            _rows([1, 2]),
            _rows([1, 2, 3, 4]),
            _rows([]),
            _rows({}),
            _rows({"x": 1, "n": 2}),
            _rows({"x": 1, "n": 2, "k": 3, "z": 4}),
            _rows({"X": 1, "n": 2, "k": 3}),
            _rows(["1", 2, 3]),
            _rows([True, 2, 3]),
            _rows([[1], 2, 3]),
            _rows([{}, 2, 3]),
            _rows([1, 2.5, 3]),
            _rows([1, "2", 3]),
            _rows([1, 2, True]),
            b'{"instances": [[1, 2, 9007199254740994.0]]}',
            b'{"instances": [[1, 3e9, 3]]}',
            _rows([1, 2147483648, 3]),
            _rows([1, -2147483649, 3]),
            _rows([1, 2, 2**63]),
            _rows([1, 2, -(2**63) - 1]),
            _rows([10**400, 2, 3]),
            _rows([1, 2, 3], [1, 2, 3], [1, "x", 3]),
            _rows(*[["x", "y", "z"]] * 100),
            _rows([1, 2, 3], parameters={"probabilty": True}),
            _rows([1, 2, 3], unknown={"left": "alone"}),
            _rows([1, 2, 3], parameters=[]),
            _rows([1, 2, 3], parameters="x"),
            b"[" * 500 + b"]" * 500,
            b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}",
        ],
    ),
    *(
        _invalid(body, INFER)
        for body in [
            b"[]",
            b"{}",
            _j({"inputs": []}),
            _j({"inputs": {}}),
            _j({"inputs": [1]}),
            _j({"inputs": [{}]}),
            _j({"id": 7, "inputs": [_tensor("x", [1])]}),
            _xnk([1], [1], [1], parameters=1),
            _xnk([1], [1], [1], parameters={"priority": 1}),
            _xnk([1], [1], [1], instances=[]),
            _xnk([1], [1], [1], outputs=[{"name": "z"}]),
            _xnk([1], [1, 2], [1]),
            _xnk(["x"], [1], [1]),
            _xnk([1], [1.5], [1]),
            _xnk([1], [2**31], [1]),
            _j({"inputs": [_tensor("x", [1])]}),
            _j({"inputs": [_tensor("x", [1]), _tensor("n", [1], "INT32"), _tensor("z", [1], "INT64")]}),
            _j(
                {
                    "inputs": [
                        _tensor("x", [1]),
                        _tensor("x", [1]),
                        _tensor("n", [1], "INT32"),
                        _tensor("k", [1]),
                    ]
                }
            ),
            _j({"inputs": [_tensor("all", [1, 2, 3], shape=[3])]}),
            _j({"inputs": [_tensor("all", [1, 2, 3, 4], shape=[2, 2])]}),
            _j({"inputs": [_tensor("x", [1], "FP99")]}),
            _j({"inputs": [{"name": "x", "shape": [1], "data": [1]}]}),
            _j({"inputs": [_tensor("x", [1], shape=[2])]}),
            _j({"inputs": [_tensor("x", [1], shape=[-1])]}),
            _j({"inputs": [_tensor("x", [1], shape=[1.0])]}),
            _j({"inputs": [_tensor("x", [1], shape="1")]}),
            _j({"inputs": [_tensor("x", [1], shape=[])]}),
            _j({"inputs": [_tensor("x", "AAAA", shape=[1])]}),
            _j({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64"}]}),
        ]
    ),
    *(
        Case(_rows([1, 2, 3]), 415, "unsupported-media-type", content_type=kind)
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "multipart/form-data",
        )
    ),
    *(
        Case(_rows([1, 2, 3]), 404, "not-found", path)
        for path in (
            "/",
            "/nope",
            "/predict/",
            "//predict",
            "/Predict",
            "/predict%00",
            "/v2/models/other/infer",
            "/v2/models/linear/versions/2/infer",
            "/v2/models/linear/infer/",
            "/v2/healthXready",
        )
    ),
    *(
        Case(b"", 405, "method-not-allowed", path, method=method)
        for method, path in (
            ("GET", "/predict"),
            ("PUT", "/predict"),
            ("DELETE", "/predict"),
            ("OPTIONS", "/predict"),
            ("PATCH", INFER),
            ("POST", "/v2/health/ready"),
            ("POST", "/openapi.json"),
            ("DELETE", "/v2/models/linear"),
        )
    ),
    *(
        Case(body, 415, "unsupported-media-type", fields=(("Content-Encoding", coding),))
        for coding in ("gzip", "zstd", "nonsense")
        for body in (_rows([1, 2, 3]), gzip.compress(_rows([1, 2, 3])))
    ),
    Case(b'{"instances": [' + b" " * 70_000 + b"]}", 413, "payload-too-large"),
    Case(b'{"inputs": [' + b" " * 70_000 + b"]}", 413, "payload-too-large", INFER),
]
