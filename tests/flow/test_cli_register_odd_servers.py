"""`chips register` and servers that answer in unusual ways: in pieces, at another address, or only to callers that they know."""

import asyncio
import json
import shlex

import pytest

from tests.flow.background_servers import BackgroundServers
from tests.flow.contract import Contract
from tests.flow.scripted import Message, Peer, Script
from tests.flow.test_cli_register_services import PREDICT, SERVICES, site
from tests.unit.cli.shell import Shell


def in_pieces(path: str, body: bytes, head: bytes, *, chunked: bool) -> Script:
    """A server that sends one page in three pieces, each when the one before has long arrived."""

    async def script(request: Message, peer: Peer) -> None:
        if request.target != path:
            await peer.answer(404, b"{}")
            return
        third = len(body) // 3
        for number, piece in enumerate((body[:third], body[third : 2 * third], body[2 * third :])):
            framed = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
            await peer.write(
                (head if number == 0 else b"") + framed + (b"0\r\n\r\n" if chunked and number == 2 else b"")
            )
            await asyncio.sleep(0.02)
        if not chunked:
            peer.close()

    return script


@pytest.mark.parametrize(
    ("head", "chunked"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n", False),
    ],
    ids=["chunked", "HTTP/1.0"],
)
def test_a_description_that_comes_in_pieces(
    shell: Shell, background: BackgroundServers, head: bytes, chunked: bool
):
    body = json.dumps(PREDICT).encode()
    url = background.backend(in_pieces("/openapi.json", body, head, chunked=chunked)).url
    told = shell.ok("register", "wine", url, "--yes", "--json").json()
    assert (told["service"], told["path"]) == ("OpenAPI (Scores)", "/score")


def described(**document: object) -> dict[str, object]:
    return {"/openapi.json": {**PREDICT, **document}}


@pytest.mark.parametrize(
    ("routes", "path"),
    [
        ({**described(servers=[{"url": "/api/v1"}]), "/api/v1/score": "use POST"}, "/api/v1/score"),
        ({**described(servers=[{"url": "https://models.example.com/api/"}]), "/score": "use POST"}, "/score"),
        ({**described(servers=[{"url": "https://models.example.com/api"}]), "/score": "", "/api/score": ""}, "/score"),
        (described(servers=[{"url": "/{stage}"}, {"url": "//["}, {}, "/x"]), "/score"),
    ],
    ids=["below it", "a proxy's", "both", "no paths"],
)  # fmt: skip
def test_the_paths_of_a_description_may_stand_below_its_servers(
    shell: Shell, background: BackgroundServers, routes: dict[str, object], path: str
):
    told = shell.ok("register", "wine", background.backend(site(routes)).url, "--yes", "--json").json()
    assert told["path"] == path


@pytest.mark.parametrize(("listed", "newest"), [(["10", "9"], "10"), (["9", "10"], "10"), (["b", "a"], "a")])
def test_of_several_versions_the_newest_is_what_a_server_answers_with(
    shell: Shell, background: BackgroundServers, listed: list[str], newest: str
):
    status = [{"version": one, "state": "AVAILABLE"} for one in listed]
    url = background.backend(site({"/v1/models/wine": {"model_version_status": status}})).url
    assert shell.ok("register", "wine", url, "--yes", "--json").json()["version"] == newest


def answering(status: int, *fields: tuple[str, str]) -> Script:
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(status, b"", list(fields))

    return script


def test_a_redirect_names_the_address_to_register(shell: Shell, background: BackgroundServers):
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(308, b"", [("Location", f"https://models.example.com/v1{request.target}")])

    ended = shell("register", "wine", background.backend(script).url, "--yes")
    assert ended.code == 76
    assert "GET /v2/health/live answered 308" in ended.err
    assert "register the address that it redirects to, https://models.example.com/v1;" in ended.err


@pytest.mark.parametrize("status", [401, 403])
def test_who_answers_nobody_is_registered_by_path_and_version(
    shell: Shell, background: BackgroundServers, status: int
):
    """Some API gateways answer 403 to each path that they do not know."""
    url = background.backend(answering(status)).url
    ended = shell("register", "wine", url, "--yes")
    assert ended.code == 77
    assert "--header" in ended.err
    assert "--path PATH --version VERSION" in ended.err
    told = shell.ok("register", "wine", url, "--path", "/score", "--version", "2", "--json").json()
    assert (told["path"], told["version"]) == ("/score", "2")
    assert "nothing shows that it serves a model" in told["unverified"]
    assert "not verified: it asks for credentials" in shell.model()["changed"]["reason"]


def test_who_answers_nobody_is_not_verified_before_it_is_shown_credentials(
    shell: Shell, background: BackgroundServers
):
    async def script(request: Message, peer: Peer) -> None:
        known = request.get("Authorization") == "Bearer key"
        await peer.answer(404 if known else 401, b"")

    url = background.backend(script).url
    command = ("register", "wine", url, "--path", "/score", "--version")
    for version in ("2", "3"):
        assert "--header NAME:VALUE sends it credentials" in shell.ok(*command, version).out
    shift = ("traffic", "wine", "2=90", "3=10")
    assert "nothing shows that it serves a model" in shell(*shift).err
    key = ("--header", "Authorization: Bearer key")
    assert "unverified" not in shell.ok(*command, "3", *key, "--json").json()
    shell.ok(*shift)


def test_force_registers_who_asks_for_credentials(shell: Shell, background: BackgroundServers):
    told = shell.ok("register", "wine", background.backend(answering(401)).url, "--force", "--json").json()
    assert "asks for credentials" in told["forced"]


def test_a_version_that_was_never_ready_gets_traffic_only_by_force(
    shell: Shell, background: BackgroundServers
):
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(503 if request.target == "/v2/health/ready" else 200, b"")

    shell.ok("register", "wine", background.backend(Contract()).url)
    url = background.backend(script).url
    loading = ("register", "wine", url, "--version", "5", "--wait", "0")
    assert "is live, but not ready yet" in shell(*loading).err
    shell.ok(*loading, "--force")
    shift = ("traffic", "wine", "1=50", "5=50")
    assert "version 5 of wine may not get traffic: it failed its verification" in shell(*shift).err
    assert shell.model()["traffic"] == {"1": 100, "5": 0}
    shell.ok(*shift, "--force")
    assert "forced: version 5" in shell.model()["changed"]["reason"]


def test_an_answer_without_an_end_is_not_read_to_its_end(shell: Shell, background: BackgroundServers):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(6):
            await peer.write(b"x" * (1 << 20))
        peer.close()

    ended = shell("register", "wine", background.backend(script).url, "--yes", "--wait", "0")
    assert ended.code == 76
    assert "it sent more than 4194304 bytes" in ended.err


def test_one_of_ours_that_takes_the_place_of_another_server_has_our_path(
    shell: Shell, background: BackgroundServers
):
    shell.ok("register", "wine", background.backend(site(SERVICES["MLflow"][0])).url, "--yes")
    assert shell.model()["backends"][0]["predict_path"] == "/invocations"
    contract = background.backend(Contract())
    shell.ok("register", "wine", contract.url)
    (backend,) = shell.model()["backends"]
    assert (backend["url"], backend.get("predict_path", "/predict")) == (contract.url, "/predict")
    shell.ok("register", "wine", contract.url, "--path", "/score")
    shell.ok("register", "wine", contract.url, "--owner", "ana")
    assert shell.model()["backends"][0]["predict_path"] == "/score", "a path of its own stays"


def test_the_line_to_try_has_values_that_the_model_takes(shell: Shell, background: BackgroundServers):
    inputs = [
        {"name": "colour", "datatype": "BYTES", "shape": [-1]},
        {"name": "sold", "datatype": "BOOL", "shape": [-1]},
        {"name": "pixels", "datatype": "INT32", "shape": [-1, 2, 2]},
        {"name": "note", "datatype": "BYTES", "shape": [-1]},
    ]
    said = {"concurrency": 2, "categories": {"colour": ["red", "green"], "other": 1}}
    url = background.backend(Contract(inputs=inputs, parameters=said)).url
    address = f"http://127.0.0.1:{background.gateway(shell.registry).port}"
    out = shell.ok("register", "wine", url, "--force", "--gateway", address).out
    (line,) = [line for line in out.splitlines() if "curl " in line]
    assert json.loads(shlex.split(line[line.index("curl ") :])[-1]) == {
        "instances": [{"colour": "red", "sold": True, "pixels": [[1, 1], [1, 1]], "note": "text"}]
    }
