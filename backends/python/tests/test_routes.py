# Long: one table of requests and responses.
"""Every route, error and header of the contract, over real sockets."""

import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from chips_backend.testing import Answer, Backend

ROWS = {"instances": [[1.5, 2], {"b": 1, "a": None}]}
INFER: dict[str, Any] = {
    "id": "42",
    "inputs": [
        {"name": "a", "shape": [2], "datatype": "FP64", "data": [1.5, 2]},
        {"name": "b", "shape": [2], "datatype": "INT64", "data": [1, 2]},
    ],
}
TIMING = ("queue", "parse", "predict", "render")


@pytest.fixture(autouse=True)
def the_next_good_request_is_answered(backend: Backend) -> Iterator[None]:
    yield
    assert backend.post("/predict", ROWS).json["predictions"] == [3.5, 1.0]


def problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert {"title", "detail", "request_id"} <= body.keys()
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert timing(answer).keys() == set(TIMING)
    return body


def timing(answer: Answer) -> dict[str, float]:
    entries = [part.strip() for part in answer.headers["Server-Timing"].split(",")]
    errors = [f'error;desc="{answer.json["code"]}"'] if answer.status >= 400 else []
    assert [entry for entry in entries if entry.startswith("error")] == errors
    parts = [entry.partition(";dur=") for entry in entries if not entry.startswith("error")]
    return {name: float(ms) for name, _, ms in parts}


def raw(backend: Backend, *parts: bytes) -> bytes:
    """Send these bytes; all that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", backend.port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        received = b""
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(65536):
                received += block
        return received


# -- what is answered


def test_predict(backend):
    answer = backend.post("/predict", ROWS)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {"predictions": [3.5, 1.0], "model": "test", "version": "1"}
    assert answer.headers["X-Chips-Model"] == "test@1"
    assert timing(answer).keys() == set(TIMING)


def test_no_rows_are_no_predictions(backend):
    assert backend.post("/predict", {"instances": []}).json["predictions"] == []


def test_many_rows_keep_their_order(backend):
    rows = [[float(number), 0] for number in range(1000)]
    assert backend.post("/predict", {"instances": rows}).json["predictions"] == [row[0] for row in rows]


def test_a_prediction_that_is_no_number_is_null(backend):
    answer = backend.post(
        "/predict", {"instances": [[1e308, 0], [1.0, 0]], "parameters": {"as": [None, "NaN"]}}
    )
    assert answer.json["predictions"] == [[None, "NaN"]] * 2


@pytest.mark.parametrize("path", ["/v2/models/test/infer", "/v2/models/test/versions/1/infer"])
def test_infer(backend, path):
    answer = backend.post(path, INFER)
    assert answer.status == 200
    assert answer.json == {
        "model_name": "test",
        "model_version": "1",
        "id": "42",
        "outputs": [{"name": "sum", "shape": [2], "datatype": "FP64", "data": [2.5, 4.0]}],
    }


def test_health(backend):
    assert backend.get("/v2/health/live").json == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/test/ready", "/v2/models/test/versions/1/ready"):
        assert backend.get(path).status == 200


@pytest.mark.parametrize("path", ["/v2/models/test", "/v2/models/test/versions/1"])
def test_metadata(backend, path):
    described = backend.get(path).json
    assert (described["name"], described["versions"], described["platform"]) == (
        "test",
        ["1"],
        "python-python",
    )
    assert described["inputs"][0] == {"name": "a", "datatype": "FP64", "shape": [-1]}
    assert described["outputs"] == [{"name": "sum", "datatype": "FP64", "shape": [-1]}]
    assert described["parameters"]["concurrency"] == 2
    assert described["parameters"]["artifact_digest"].startswith("sha256:")


def test_openapi(backend):
    document = backend.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    by_name, in_order = document["components"]["schemas"]["Instance"]["oneOf"]
    assert by_name["properties"] == {"a": {"type": ["number", "null"]}, "b": {"type": ["integer", "null"]}}
    assert len(in_order["prefixItems"]) == 2
    for path, methods in document["paths"].items():
        for method in methods:
            answer = backend.ask(method.upper(), path, b"{}" if method == "post" else None)
            assert answer.status != 404, path
    references = json.dumps(document).split('"#/components/schemas/')[1:]
    assert {text.partition('"')[0] for text in references} <= document["components"]["schemas"].keys()


def test_head_is_get_without_a_body(backend):
    answer = backend.ask("HEAD", "/v2/health/live")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == "13"


def test_a_query_changes_nothing(backend):
    assert backend.get("/v2/health/live?x=/../").status == 200


# -- what is refused

BROKEN_JSON = [b"", b"{", b"not json", b'{"instances": [1,]}', b"\xff", b'{"instances": NaN}', b"[" * 99_000]


@pytest.mark.parametrize("path", ["/predict", "/v2/models/test/infer"])
@pytest.mark.parametrize("content", BROKEN_JSON)
def test_what_is_no_json(backend, path, content):
    body = problem(backend.post(path, content), 400, "malformed-json")
    assert ("error" in body) == path.startswith("/v2/")


def test_no_json_is_told_with_line_and_column(backend):
    body = problem(backend.post("/predict", b'{"instances": [\n  [1, 2],\n  oops\n]}'), 400, "malformed-json")
    assert "line 3, column 3" in body["detail"]


BAD_INSTANCES = [
    ({"rows": []}, "instances is missing"),
    ({"instances": [[1, 2], [1.0]]}, "instances[1]: expected 2 values, got 1"),
    ({"instances": [[1, 2], [1, 2], {"a": "high", "b": 1}]}, 'instances[2].a: expected a number, got "high"'),
    ({"instances": [{"a": 1, "b": 2, "c": 3}]}, 'instances[0]: there is no input "c"'),
    (
        {"instances": [[1, 2**63]]},
        "instances[0][1]: expected INT64, got 9223372036854775808, which does not fit",
    ),
]


@pytest.mark.parametrize(("content", "detail"), BAD_INSTANCES)
def test_wrong_instances(backend, content, detail):
    body = problem(backend.post("/predict", content), 422, "invalid-instances")
    assert body["detail"] == detail
    assert "error" not in body


def test_a_wrong_tensor_speaks_both_languages(backend):
    answer = backend.post("/v2/models/test/infer", {"inputs": [{**INFER["inputs"][0], "shape": [3]}]})
    body = problem(answer, 422, "invalid-instances")
    assert body["error"] == body["detail"] == "inputs[0]: shape [3] means 3 values, data has 2"


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/predict/", "//predict", "/v2", "/v2/models/other", "/v2/models/other/infer", "/%70redict",
     "/v2/models/test/versions/2/infer", "/v2/models/test/versions/1/infer/x", "/../predict"],
)  # fmt: skip
def test_an_unknown_path(backend, path):
    problem(backend.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict", "POST"),
        ("OPTIONS", "/predict", "POST"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/v2/models/test", "GET, HEAD"),
        ("GET", "/v2/models/test/infer", "POST"),
    ],
)
def test_a_wrong_method(backend, method, path, allow):
    answer = backend.ask(method, path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == allow


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/csv", "application/x-www-form-urlencoded", "application/octet-stream", "json"],
)
def test_a_wrong_content_type(backend, kind):
    problem(backend.post("/predict", ROWS, {"Content-Type": kind}), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
def test_a_content_type_that_is_json(backend, kind):
    assert backend.post("/predict", ROWS, {"Content-Type": kind}).status == 200


def test_no_content_type_is_taken_as_json(backend):
    assert backend.ask("POST", "/predict", json.dumps(ROWS).encode()).status == 200


def test_a_body_over_the_limit_that_says_so(backend):
    answer = raw(
        backend,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100001\r\n\r\n",
        b"[" * 100_001,
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"payload-too-large"' in answer


def test_a_body_over_the_limit_in_chunks(backend):
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(backend, head, *[chunk] * 4, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"payload-too-large"' in answer


def test_a_body_at_the_limit(backend):
    content = json.dumps(ROWS).encode()
    assert backend.post("/predict", content + b" " * (100_000 - len(content))).status == 200
    problem(backend.post("/predict", content + b" " * (100_001 - len(content))), 413, "payload-too-large")


def test_expect_100_continue(backend):
    content = json.dumps(ROWS).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\nConnection: close\r\n"
    answer = raw(backend, head.encode() + b"Expect: 100-continue\r\n\r\n", content)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    refused = raw(
        backend,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\nExpect: 100-continue\r\n\r\n",
    )
    assert refused.startswith(b"HTTP/1.1 413 ")


NO_HTTP = [
    b"GARBAGE\r\n\r\n",
    b"GET\r\n\r\n",
    b"BREW /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/health/live HTTP/9.9\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v2/health/live HTTP/1.1\r\nA B: c\r\n\r\n",
    b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
]


@pytest.mark.parametrize("request_", NO_HTTP)
def test_what_is_no_http(backend, request_):
    answer = raw(backend, request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
    assert json.loads(body)["code"] == "bad-request"
    assert b"server-timing: queue;dur=" in head.lower()
    assert b"x-request-id: " in head.lower()


def test_a_header_that_is_too_long(backend):
    answer = raw(backend, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.0 431 "))
    assert b'"code":"headers-too-large"' in answer


def test_a_header_as_long_as_the_gateway_takes_it(backend):
    assert backend.get("/v2/health/live", {"X-Long": "x" * 16_000}).status == 200
    answer = raw(backend, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 17_000 + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.0 431 "))


def test_a_caller_that_leaves_in_the_middle_of_a_body(backend):
    with socket.create_connection(("127.0.0.1", backend.port)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    line = backend.wait_for(lambda line: line.get("code") == "client-closed-request")
    assert line["httpRequest"]["status"] == 499


# -- the model


def test_what_the_model_raises_goes_to_the_log_alone(backend):
    rows = [[1.0, 2], {"a": 3.0, "b": 1}, {"a": -1.0, "b": 1}, [-1.0, 0]]
    answer = backend.post("/predict", {"instances": rows}, {"X-Request-Id": "it-was-this-one"})
    body = problem(answer, 422, "invalid-instances")
    assert body["detail"] == "instances[2].a: the model cannot take -1.0"
    assert body["request_id"] == "it-was-this-one"
    line = backend.wait_for(lambda line: line.get("request_id") == "it-was-this-one" and "reason" in line)
    assert line["reason"] == "RuntimeError: the model's secret reason"
    assert line["severity"] == "WARNING"
    assert "stack" not in line
    assert answer.headers["Server-Timing"].endswith(', error;desc="invalid-instances"')


def test_on_infer_the_place_is_the_tensors(backend):
    tensors = [{**INFER["inputs"][0], "data": [1.0, -1.0]}, INFER["inputs"][1]]
    answer = backend.post("/v2/models/test/infer", {"inputs": tensors})
    assert problem(answer, 422, "invalid-instances")["detail"] == "a[1]: the model cannot take -1.0"


@pytest.mark.parametrize("value", [-4.0, -5.0, -6.0, -7.0, -8.0])
def test_whatever_the_model_lets_out_costs_its_own_request_alone(backend, value):
    """StopIteration, SystemExit, KeyboardInterrupt, CancelledError, GeneratorExit: more often than there are slots."""
    for _ in range(3):
        problem(backend.post("/predict", {"instances": [[value, 0]]}), 500, "prediction-failed")
    assert backend.get("/v2/health/ready").status == 200


def test_a_parameter_that_the_model_does_not_know(backend):
    assert backend.get("/v2/models/test").json["parameters"]["accepts"] == ["as", "begun", "flag", "gate"]
    answer = backend.post("/predict", {**ROWS, "parameters": {"flagg": True}})
    assert "those it knows are as, begun, flag, gate" in problem(answer, 422, "invalid-instances")["detail"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "br", "nonsense", "gzip, identity"])
def test_a_coding_is_refused_whatever_the_body_is(backend, coding):
    for body in (json.dumps(ROWS).encode(), gzip.compress(json.dumps(ROWS).encode())):
        answer = backend.post("/predict", body, {"Content-Encoding": coding})
        problem(answer, 415, "unsupported-media-type")
        assert answer.headers["Accept-Encoding"] == "identity"
    assert backend.post("/predict", ROWS, {"Content-Encoding": "identity"}).status == 200


def test_each_content_coding_counts(backend):
    with contextlib.closing(backend.connect()) as connection:
        connection.putrequest("POST", "/predict")
        for name, value in (
            ("Content-Encoding", "identity"),
            ("Content-Encoding", "gzip"),
            ("Content-Length", "0"),
        ):
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 415


def test_what_the_model_refuses_is_the_callers(backend):
    answer = backend.post("/predict", {"instances": [[-2.0, 0]]})
    assert problem(answer, 422, "invalid-instances")["detail"] == "there is no such wine"


# -- headers and logs


def test_a_request_id_is_taken_or_made(backend):
    assert backend.get("/v2/health/live", {"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    for bad in ("", "a b", "x" * 129, "a\tb"):
        made = backend.get("/v2/health/live", {"X-Request-Id": bad}).headers["X-Request-Id"]
        assert len(made) == 32


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACES = [
    ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, (TRACE, SPAN, True)),
    ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, (TRACE, SPAN, False)),
    ({"traceparent": f"cc-{TRACE}-{SPAN}-01-more"}, (TRACE, SPAN, True)),
    ({"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Cloud-Trace-Context": "f" * 32}, (TRACE, SPAN, True)),
    ({"X-Cloud-Trace-Context": f"{TRACE}/255;o=1"}, (TRACE, "00000000000000ff", True)),
    ({"X-Cloud-Trace-Context": f"{TRACE}/255;o=0"}, (TRACE, "00000000000000ff", False)),
    ({"X-Cloud-Trace-Context": f"{TRACE.upper()}/1"}, (TRACE, "0000000000000001", False)),
    ({"traceparent": f"ff-{TRACE}-{SPAN}-01"}, None),
    ({"traceparent": f"00-{'0' * 32}-{SPAN}-01"}, None),
    ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
    ({"traceparent": "nonsense"}, None),
    ({"traceparent": f"00-{TRACE.upper()}-{SPAN}-01"}, None),
    ({"X-Cloud-Trace-Context": "nonsense"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "trace"), TRACES)
def test_the_trace_is_in_the_log(backend, headers, trace):
    made = backend.get("/v2/health/ready", headers).headers["X-Request-Id"]
    line = backend.wait_for(lambda line: line.get("request_id") == made)
    names = [f"logging.googleapis.com/{name}" for name in ("trace", "spanId", "trace_sampled")]
    if trace is None:
        assert not any(name in line for name in names)
    else:
        trace_id, span_id, sampled = trace
        assert [line[name] for name in names] == [f"projects/the-project/traces/{trace_id}", span_id, sampled]


def test_the_log_line_of_a_request(backend):
    headers = {"X-Request-Id": "the-line", "X-Chips-Caller": "ana"}
    content = json.dumps({"instances": [[12345.678, 9]]}).encode()
    backend.post("/predict?secret=1", content, headers)
    line = backend.wait_for(lambda line: line.get("request_id") == "the-line")
    request = line["httpRequest"]
    assert (request["requestMethod"], request["requestUrl"], request["status"]) == ("POST", "/predict", 200)
    assert request["requestSize"] == str(len(content))
    assert request["latency"].endswith("s")
    assert (line["model"], line["version"], line["caller"], line["severity"]) == ("test", "1", "ana", "INFO")
    assert line["service"] == "wine-backend"
    assert line["timing"].keys() == set(TIMING)
    assert line["timing"]["predict"] > 0
    assert "12345.678" not in json.dumps(line)
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize("left", ["0", "00"])
def test_time_that_is_over_before_work_begins(backend, left):
    problem(backend.post("/predict", ROWS, {"X-Request-Timeout": left}), 504, "deadline-exceeded")


@pytest.mark.parametrize("left", ["60000", "", "soon", "-1", "1e9", "9" * 30])
def test_time_enough_or_nonsense(backend, left):
    assert backend.post("/predict", ROWS, {"X-Request-Timeout": left}).status == 200


def test_a_connection_is_kept_and_answers_come_in_order(backend):
    with contextlib.closing(backend.connect()) as connection:
        for number in range(20):
            content = {"instances": [[float(number), 0]]} if number % 3 else {"instances": 7}
            connection.request("POST", "/predict", json.dumps(content), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = json.loads(response.read())
            assert response.status == (200 if number % 3 else 422)
            if number % 3:
                assert body["predictions"] == [number]


def test_requests_in_one_piece_are_answered_in_order(backend):
    one = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\n%s\r\n"
    answer = raw(
        backend,
        b"".join(one % (number, b"Connection: close\r\n" if number == 4 else b"") for number in range(5)),
    )
    ids = [line.split(b": ")[1] for line in answer.split(b"\r\n") if line.startswith(b"X-Request-Id")]
    assert ids == [b"0", b"1", b"2", b"3", b"4"]


def test_an_answer_does_not_tell_which_server_it_is(backend):
    assert "aiohttp" not in backend.get("/v2/health/live").headers.get("Server", "")


def test_callers_do_not_get_each_others_answers(backend):
    wrong: list[Any] = []

    def call(number: int) -> None:
        for turn in range(20):
            value = number * 1000.0 + turn
            answer = backend.post("/predict", {"instances": [[value, 0]]})
            if answer.status != 200 or answer.json["predictions"] != [value]:
                wrong.append(answer)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
