"""What model code and callers do to an R backend: each costs its own request at most, and the caller is told the place."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.backends.languages import run_r
from tests.contract.backends.process import Backend, R
from tests.contract.backends.r.conftest import Start, edit
from tests.patience import patience

EX_DATAERR = 65

# A class of the tests' own, whose predict() does what the number says. Its code travels in the model, as a closure does.
ODD = """
model <- structure(list(act = function(rows, folder) {
  x <- rows$x
  if (any(x == 1)) stop("a bug for this row")
  if (any(x == 2)) quit(save = "no")
  if (any(x == 3)) tools::pskill(Sys.getpid(), tools::SIGKILL)
  if (any(x == 4)) repeat Sys.sleep(0.05)
  if (any(x == 5)) closeAllConnections()
  if (any(x == 6)) { reg.finalizer(new.env(), function(e) stop("in a finalizer")); gc() }
  if (any(x == 7)) { reg.finalizer(new.env(), function(e) quit(save = "no")); gc() }
  if (any(x == 8)) numeric(1e15)
  if (any(x == 9)) { f <- function() f(); f() }
  if (any(x == 10)) { sink(); sink(); cat("printed\\\\n"); message("and told") }
  if (any(x == 11)) signalCondition(structure(class = c("interrupt", "condition"), list()))
  if (any(x == 12)) return(x[-1])
  if (any(x == 13)) unlink(tempdir(), recursive = TRUE)
  if (any(x == 13)) tools::pskill(Sys.getpid(), tools::SIGKILL)
  x * 2
}), class = "odd")
row <- function(x) list(request = list(instances = list(list(x = x))), response = list(predictions = I(2 * x)))
chips_publish(model, "odd", "1", list(chips_tensor("x")), list(chips_tensor("y")), list(row(20)),
              store = commandArgs(TRUE)[1])
"""
PREDICT = """
predict_rows <- function(model, rows, parameters) model$act(rows)
own_parameters <- function(model) NULL
"""


@pytest.fixture(scope="module")
def odd_store(has_r: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("odd")
    run_r(ODD, str(store))
    return store / "odd" / "1"


@pytest.fixture(scope="module")
def odd_backend(odd_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    command = edit(tmp_path_factory.mktemp("backend"), PREDICT)
    backend = Backend((command,), {"CHIPS_ARTIFACT": str(odd_store), "CHIPS_CONCURRENCY": "1"})
    yield backend.ready()
    backend.kill()


@pytest.fixture
def odd(odd_backend: Backend) -> Iterator[Backend]:
    yield odd_backend
    # Whatever happened: the next caller has its answer, and readiness is true.
    assert odd_backend.predict([21]).json()["predictions"] == [42.0]
    assert odd_backend.ask("GET", "/v2/health/ready").status_code == 200


def test_a_row_that_fails_alone_is_named_and_its_error_is_in_the_log_only(odd: Backend):
    answer = odd.predict([20], [1], [21])
    assert answer.status_code == 422
    assert answer.json()["detail"] == "instances[1].x: the model cannot take 1.0"
    request_id = answer.headers["X-Request-Id"]
    line = odd.wait_for(lambda entry: entry.get("request_id") == request_id and "reason" in entry)
    assert "a bug for this row" in line["reason"]
    assert "\n" not in line["reason"], "who is to blame is known, so nobody needs the way to it"
    assert "a bug for this row" not in answer.text
    tensors = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [20, 1]}]}
    answer = odd.ask("POST", "/v2/models/odd/infer", json=tensors)
    assert answer.json()["detail"] == "x[1]: the model cannot take 1.0"


@pytest.mark.parametrize("x", [2, 3, 13], ids=["quit()", "SIGKILL", "SIGSEGV"])
def test_a_model_that_ends_its_process_costs_its_own_request(odd: Backend, x: int):
    answer = odd.predict([x])
    assert (answer.status_code, answer.json()["code"]) == (500, "prediction-failed")


def test_a_prediction_that_does_not_end_is_ended_at_its_deadline(odd: Backend):
    answer = odd.predict([4], **{"X-Request-Timeout": str(int(patience(1500)))})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline-exceeded")
    assert "not done by the deadline" in str(odd.wait_for(lambda entry: "was ended" in str(entry["message"])))


@pytest.mark.parametrize(
    "x",
    [5, 6, 7, 10],
    ids=["closeAllConnections()", "stop() in a finalizer", "quit() in a finalizer", "sink()"],
)
def test_what_spoils_the_process_spoils_no_other_answer(odd: Backend, x: int):
    answer = odd.predict([x])
    assert answer.status_code == 500 if x == 7 else answer.json()["predictions"] == [2.0 * x]


@pytest.mark.parametrize("x", [8, 9, 12], ids=["memory", "recursion", "no prediction for it"])
def test_errors_of_the_process_are_answered_with_the_place(odd: Backend, x: int):
    answer = odd.predict([20], [x])
    assert answer.status_code == 422
    assert "instances[1].x" in answer.json()["detail"]


def test_a_worker_that_cannot_be_warmed_up_again_is_not_ready(
    start_r: Start, odd_store: Path, tmp_path: Path
):
    broken = tmp_path / "broken"
    code = f"""
predict_rows <- function(model, rows, parameters) {{
  if (file.exists("{broken}")) tools::pskill(Sys.getpid(), tools::SIGKILL)
  rows$x * 2
}}
"""
    environ = {"CHIPS_MODEL": "odd", "CHIPS_ARTIFACT": odd_store, "CHIPS_CONCURRENCY": "1"}
    backend = start_r(environ, (edit(tmp_path, code),)).ready()
    broken.touch()
    assert backend.predict([1]).status_code == 500
    backend.wait_for(lambda entry: "could not be warmed up" in str(entry["message"]))
    answer = backend.ask("GET", "/v2/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
    assert backend.predict([1]).json()["code"] == "not-ready"
    assert backend.ask("GET", "/v2/health/live").status_code == 200
    broken.unlink()
    while backend.ask("GET", "/v2/health/ready").status_code != 200:
        pass  # each look is a request; the test's own timeout ends it
    assert backend.predict([1]).json()["predictions"] == [2.0]


REFUSED = {
    "a list of parts": ("structure(list(), class = 'parts')", "list(class = 1, posterior = 2)", "which part"),
    "a matrix on its side": ("1", "matrix(1, 3, nrow(rows))", "3 predictions for 1 rows"),
    "a scalar": ("1", "0", "1 predictions for 2 rows"),
    "another row's company": ("1", "rows$x - mean(rows$x)", "depends on the rows next to it"),
    "codes by request": ("1", "as.integer(factor(rows$x))", "depends on the rows next to it"),
    "complex numbers": ("1", "1i * rows$x", "complex"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_model_with_no_right_answer_is_refused_at_the_start(
    start_r: Start, tmp_path: Path, has_r: None, case: str
):
    model, answer, why = REFUSED[case]
    run_r(
        f"chips_publish({model}, 'odd', '1', list(chips_tensor('x')), store = commandArgs(TRUE)[1])",
        str(tmp_path),
    )
    code = f"predict_rows <- function(model, rows, parameters) {answer}"
    backend = start_r({"CHIPS_MODEL": "odd", "CHIPS_ARTIFACT": tmp_path / "odd/1"}, (edit(tmp_path, code),))
    assert backend.end() == EX_DATAERR
    assert why in backend.why()


def test_rows_that_are_ranked_together_on_purpose(start_r: Start, tmp_path: Path, has_r: None):
    run_r(
        "chips_publish(1, 'odd', '1', list(chips_tensor('x')), store = commandArgs(TRUE)[1], rows = 'together')",
        str(tmp_path),
    )
    code = "predict_rows <- function(model, rows, parameters) rank(rows$x)"
    backend = start_r(
        {"CHIPS_MODEL": "odd", "CHIPS_ARTIFACT": tmp_path / "odd/1"}, (edit(tmp_path, code),)
    ).ready()
    assert backend.predict([3], [1], [2]).json()["predictions"] == [3.0, 1.0, 2.0]
    assert backend.ask("GET", "/v2/models/odd").json()["parameters"]["rows"] == "together"


def test_a_function_of_the_backend_is_no_function_of_a_formula(start_r: Start, tmp_path: Path, has_r: None):
    """`score` in the formula is the training session's, which the backend lacks; it must not find its own."""
    run_r(
        "assign('score', function(x) x^2, globalenv());"
        "model <- lm(stats::as.formula('dist ~ score(speed)', globalenv()), cars);"
        "chips_publish(model, 'odd', '1', list(chips_tensor('speed')), store = commandArgs(TRUE)[1])",
        str(tmp_path),
    )
    backend = start_r({"CHIPS_MODEL": "odd", "CHIPS_ARTIFACT": tmp_path / "odd/1"})
    assert backend.end() == EX_DATAERR
    assert 'could not find function "score"' in backend.why()


# -- HTTP


@pytest.fixture(scope="module")
def linear(linear_store: Path) -> Iterator[Backend]:
    backend = Backend(R, {"CHIPS_ARTIFACT": str(linear_store / "linear/1"), "CHIPS_CONCURRENCY": "1"})
    yield backend.ready()
    backend.kill()


def test_an_upgrade_is_answered(linear: Backend):
    """As Java's client asks by itself, and as a browser asks for a WebSocket: never a connection that just ends."""
    h2c = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    websocket = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    for headers in (h2c, websocket):
        for method, path in (("GET", "/v2/health/ready"), ("POST", "/predict")):
            answer = linear.ask(method, path, json={"instances": [[1.5, 2, 3]]}, headers=headers)
            assert (answer.status_code, answer.content) == (400, b"")
            assert answer.headers["X-Request-Id"]
    assert linear.predict([1.5, 2, 3]).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "made-up"])
def test_a_coding_is_refused_with_what_is_taken(linear: Backend, coding: str):
    for headers in ({"Content-Encoding": coding}, {"Content-Encoding": coding.upper()}):
        answer = linear.ask("POST", "/predict", json={"instances": [[1.5, 2, 3]]}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
        assert answer.headers["Accept-Encoding"] == "identity"
    assert linear.predict([1.5, 2, 3], **{"Content-Encoding": "identity"}).status_code == 200


def test_header_fields_have_a_limit(linear: Backend):
    assert linear.predict([1.5, 2, 3], **{"X-Long": "x" * 9000}).status_code == 200
    answer = linear.predict([1.5, 2, 3], **{"X-Long": "x" * 16_400})
    assert (answer.status_code, answer.json()["code"]) == (431, "headers-too-large")
    assert linear.ask("GET", f"/v2/health/live?{'x' * 16_400}").status_code == 431


def test_health_is_answered_while_a_large_body_is_parsed(linear: Backend):
    """Bodies are parsed in the workers: after one of 20 MiB has been sent, health does not wait for its answer."""
    rows = b"[1.5,2,3]," * 2_000_000
    body = b'{"instances":[' + rows + b"[1.5,2,3]]}"
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = linear.url.removeprefix("http://").split(":")
    before = len(linear.log)
    with closing(socket.create_connection((host, int(port)), timeout=patience(60))) as connection:
        connection.sendall(head.encode() + body)
        assert linear.ask("GET", "/v2/health/live").status_code == 200
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    linear.wait_for(lambda entry: entry in linear.log[before:] and entry["message"] == "POST /predict 200")
    # By the backend's log, since this process may stand still before it looks.
    answered = [entry["message"] for entry in linear.log[before:]]
    assert answered == ["GET /v2/health/live 200", "POST /predict 200"]
