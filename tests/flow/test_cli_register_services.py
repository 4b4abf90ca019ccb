"""`chips register` recognises model servers of other kinds: each answers as the real one does, of which only the routes matter."""

import io
import json
import shlex
from typing import Any

import pytest

from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import Message, Peer, Script
from tests.unit.cli.shell import Shell

PREDICT = {
    "openapi": "3.1.0",
    "info": {"title": "Scores", "version": "1"},
    "paths": {
        "/": {"get": {}},
        "/score": {
            "post": {
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Row"}}}
                }
            }
        },
        "/admin/reload": {"post": {}},
        "/items/{id}": {"post": {}},
    },
    "components": {
        "schemas": {
            "Row": {
                "type": "object",
                "properties": {
                    "age": {"type": "integer"},
                    "city": {"type": "string", "examples": ["Ulm"]},
                    "scores": {"type": "array", "items": {"type": "number"}},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
            }
        }
    },
}
BENTO = {
    "openapi": "3.0.2",
    "info": {"title": "iris_service", "version": "None"},
    "paths": {
        "/livez": {"get": {}},
        "/readyz": {"get": {}},
        "/classify": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {"rows": {"type": "array", "items": {"type": "number"}}},
                            }
                        }
                    }
                }
            }
        },
    },
}
VETIVER = {
    "openapi": "3.1.0",
    "info": {"title": "Vetiver Model API", "version": "0.2.6"},
    "paths": {
        "/predict": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {"cyl": {"type": "number", "example": 6}},
                                },
                            }
                        }
                    }
                }
            }
        }
    },
}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}

# kind -> what it answers, (what it is called, path, version, body to begin with)
SERVICES: dict[str, tuple[dict[str, Any], tuple[str, str, str, Any]]] = {
    "MLServer": (
        {
            "/v2/health/live": {},
            "/v2/health/ready": {},
            "/v2": {"name": "mlserver", "version": "1.7.0", "extensions": []},
            "/v2/models/wine": {"name": "wine", "versions": [], "platform": "", "inputs": [TENSOR], "outputs": []},
        },
        ("MLServer", "/v2/models/wine/infer", "1", {"inputs": [{**TENSOR, "shape": [1, 2], "data": [0, 0]}]}),
    ),
    "MLServer under another name": (
        {
            "/v2/health/live": {},
            "/v2/health/ready": {},
            "/v2": {"name": "mlserver", "version": "1.7.0", "extensions": []},
            "POST /v2/repository/index": [{"name": "iris", "version": "", "state": "READY"}],
            "/v2/models/iris": {"name": "iris", "versions": ["v2"], "platform": "", "inputs": [], "outputs": []},
        },
        ("MLServer", "/v2/models/iris/infer", "v2", None),
    ),
    "Triton": (
        {
            "/v2/health/live": "",
            "/v2/health/ready": "",
            "/v2": {"name": "triton", "version": "2.50.0", "extensions": ["classification"]},
            "/v2/models/wine": {
                "name": "wine", "versions": ["1", "3"], "platform": "onnxruntime_onnx",
                "inputs": [{"name": "t", "datatype": "BYTES", "shape": [-1]}], "outputs": [TENSOR],
            },
        },
        ("Triton", "/v2/models/wine/infer", "3", {"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1], "data": ["text"]}]}),
    ),
    "KServe v2": (
        {
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
            "/v2": {"name": "kserve", "version": "0.21.0", "extensions": ["model_repository_extension"]},
            "/v2/models/wine": {"name": "wine", "versions": None, "platform": "", "inputs": None, "outputs": None},
        },
        ("KServe v2", "/v2/models/wine/infer", "1", None),
    ),
    "KServe v1": (
        {"/v1/models/wine": {"name": "wine", "ready": "True"}, "/v1/models": {"models": ["wine"]}},
        ("KServe v1", "/v1/models/wine:predict", "1", {"instances": [[0]]}),
    ),
    "TensorFlow Serving": (
        {
            "/v1/models/wine": {
                "model_version_status": [
                    {"version": "2", "state": "END", "status": {"error_code": "OK"}},
                    {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK"}},
                ]
            }
        },
        ("TensorFlow Serving", "/v1/models/wine:predict", "7", {"instances": [[0]]}),
    ),
    "OpenAI-compatible": (
        {"/v1/models": {"object": "list", "data": [{"id": "qwen", "object": "model"}]}, "/version": {"version": "0.9"}},
        (
            "OpenAI-compatible", "/v1/chat/completions", "1",
            {"model": "qwen", "messages": [{"role": "user", "content": "Hello"}]},
        ),
    ),
    "TorchServe": (
        {"/ping": {"status": "Healthy"}, "/api-description": {"info": {"title": "TorchServe APIs"}, "paths": {"/ping": {}}}},
        ("TorchServe", "/predictions/wine", "1", {"data": "…"}),
    ),
    "MLflow": (
        {"/ping": "\n", "/health": "\n", "/version": "3.17.0"},
        ("MLflow 3.17.0", "/invocations", "1", {"dataframe_records": [{"…": 0}]}),
    ),
    "LitServe": (
        {
            "/health": "ok",
            "/info": {"model": None, "server": {"devices": ["cpu"], "workers_per_device": 1, "timeout": 30}},
            "/openapi.json": {"paths": {"/predict": {"post": {}}, "/health": {"get": {}}, "/shutdown": {"post": {}}}},
        },
        ("LitServe", "/predict", "1", {"input": 0}),
    ),
    "Ray Serve": ({"/-/routes": {"/": "default"}, "/-/healthz": "success"}, ("Ray Serve", "/", "1", None)),
    "Ray Serve with a prefix": (
        {"/-/routes": {"/beer": "a", "/wine": "b"}, "/-/healthz": "success"},
        ("Ray Serve", "/wine", "1", None),
    ),
    "vetiver in Python": (
        {
            "/ping": {"ping": "pong"},
            "/metadata": {"user": {}, "version": "20261129T1", "url": None, "required_pkgs": ["scikit-learn"]},
            "/openapi.json": VETIVER,
        },
        ("vetiver", "/predict", "20261129T1", [{"cyl": 6}]),
    ),
    "vetiver in R": (
        {"/ping": {"status": ["online"]}, "/metadata": {"version": ["20261129T1"], "required_pkgs": ["stats"]}},
        ("vetiver", "/predict", "20261129T1", None),
    ),
    "BentoML": (
        {"/livez": "", "/readyz": "", "/docs.json": BENTO},
        ("BentoML", "/classify", "1", {"rows": [0]}),
    ),
    "what describes itself": (
        {"/openapi.json": PREDICT},
        ("OpenAPI (Scores)", "/score", "1", {"age": 0, "city": "Ulm", "scores": [0], "note": "text"}),
    ),
    "plumber": (
        {
            "/openapi.json": {
                "openapi": "3.0.3", "info": {"title": "API Title"},
                "paths": {"/echo": {"get": {}}, "/predict": {"post": {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}}},
            }
        },
        ("OpenAPI (API Title)", "/predict", "1", {}),
    ),
}  # fmt: skip


def site(routes: dict[str, Any]) -> Script:
    """A server that knows these paths; what is not a text is JSON."""

    async def script(request: Message, peer: Peer) -> None:
        key = request.target if request.method == "GET" else f"{request.method} {request.target}"
        if key not in routes:
            await peer.answer(404, b'{"detail": "Not Found"}', [("Content-Type", "application/json")])
            return
        content = routes[key]
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        kind = "text/plain" if isinstance(content, str) else "application/json"
        await peer.answer(200, body, [("Content-Type", kind)])

    return script


@pytest.mark.parametrize("what", SERVICES)
def test_it_is_registered_in_one_try(shell: Shell, background: BackgroundServers, what: str):
    routes, (kind, path, version, example) = SERVICES[what]
    url = background.backend(site(routes)).url
    told = shell.ok("register", "wine", url, "--yes", "--json").json()
    assert (told["service"], told["path"], told["version"], told["example"]) == (kind, path, version, example)
    (backend,) = shell.model()["backends"]
    assert (backend["predict_path"], backend["platform"], backend["url"]) == (path, kind, url)


def test_without_a_terminal_the_proposal_is_a_question_with_its_answer(
    shell: Shell, background: BackgroundServers
):
    url = background.backend(site(SERVICES["MLflow"][0])).url
    ended = shell("register", "wine", url)
    assert ended.code == 64
    assert "looks like MLflow 3.17.0: path /invocations, version 1" in ended.err
    assert f"chips register wine {url} --yes" in ended.err
    assert shell.ok("models", "--json").json() == []


def test_what_is_said_wins_over_what_it_looks_like_and_asks_nothing(
    shell: Shell, background: BackgroundServers
):
    url = background.backend(site(SERVICES["what describes itself"][0])).url
    told = shell.ok("register", "wine", url, "--path", "/", "--version", "7", "--json").json()
    assert (told["path"], told["version"], told["example"]) == ("/", "7", None)
    assert shell.model()["backends"][0]["predict_path"] == "/"


def test_the_line_to_try_fits_the_service(shell: Shell, background: BackgroundServers):
    url = background.backend(site(SERVICES["BentoML"][0])).url
    address = f"http://127.0.0.1:{background.gateway(shell.registry).port}"
    out = shell.ok("register", "wine", url, "--yes", "--access", "public", "--gateway", address).out
    (line,) = [line for line in out.splitlines() if "curl " in line]
    words = shlex.split(line[line.index("curl ") :])
    assert (words[1], json.loads(words[-1])) == (f"{address}/wine", {"rows": [0]})


def test_a_path_of_ones_own_gets_no_line_that_would_be_wrong(shell: Shell, background: BackgroundServers):
    url = background.backend(site({})).url
    address = f"http://127.0.0.1:{background.gateway(shell.registry).port}"
    out = shell.ok(
        "register",
        "wine",
        url,
        "--no-probe",
        "--force",
        "--version",
        "1",
        "--path",
        "/x",
        "--gateway",
        address,
    ).out
    assert "live " in out
    assert "curl" not in out


def test_what_is_not_recognised_is_told_with_every_option_that_helps(
    shell: Shell, background: BackgroundServers
):
    ended = shell("register", "wine", background.backend(site({})).url, "--wait", "0")
    assert ended.code == 76
    for option in ("--path", "--version", "--header", "--wait", "--force"):
        assert option in ended.err
    assert "GET /v2/health/live answered 404" in ended.err


def test_force_asks_nobody_to_be_there(shell: Shell):
    told = shell.ok("register", "wine", "http://127.0.0.1:9", "--force", "--wait", "0", "--json").json()
    assert told["version"] == "1"
    assert "nobody listens at 127.0.0.1:9 (connection refused)" in told["forced"]
    assert "forced" in shell.model()["changed"]["reason"]


@pytest.mark.parametrize(
    "routes",
    [
        {"/v2": [], "/v2/models/wine": []},
        {"/v1/models": {"object": "list", "data": {}}, "/v1/models/wine": []},
        {
            "/openapi.json": {
                "paths": {"/x": {"post": {"requestBody": {"$ref": "#/a"}}}},
                "a": {"$ref": "#/a"},
            }
        },
        {
            "/docs.json": {"paths": {"/x": 1}},
            "/info": {"server": 1},
            "/-/routes": [],
            "/metadata": [],
            "/version": "x",
        },
        {"/openapi.json": {"paths": {"/x": {"post": {"requestBody": {"content": []}}}}}},
    ],
    ids=str,
)
def test_whatever_is_answered_the_command_ends_well(
    shell: Shell, background: BackgroundServers, routes: dict[str, Any]
):
    ended = shell("register", "wine", background.backend(site(routes)).url, "--wait", "0", "--yes")
    assert ended.code in {0, 76}, ended


def test_one_of_ours_that_is_broken_is_not_taken_for_another_kind(
    shell: Shell, background: BackgroundServers
):
    from tests.flow.contract import Contract

    contract = Contract()
    contract.routes["/v2/models/wine"] = (200, b"[]", [("Content-Type", "application/json")])
    assert shell("register", "wine", background.backend(contract).url, "--yes", "--wait", "0").code == 76


class Terminal(io.StringIO):
    """Somebody sits there and types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("\n", 0), ("n\n", 130)])
def test_on_a_terminal_it_is_asked_once(
    shell: Shell, background: BackgroundServers, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
):
    url = background.backend(site(SERVICES["MLflow"][0])).url
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    ended = shell("register", "wine", url)
    assert ended.code == code, ended
    assert ended.err.count("Register it so?") == 1
    assert len(shell.ok("models", "--json").json()) == (code == 0)
