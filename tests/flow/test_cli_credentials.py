"""A backend that answers only known callers, as Cloud Run does: `chips register` and `chips verify` show who is logged in here."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.contract.backends.broken import Whole
from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import Message, Peer, ScriptedBackend
from tests.unit.cli.shell import Shell


class Closed:
    """The contract, for those who show the one good token, in either of the two fields that Cloud Run reads."""

    def __init__(self, token: str) -> None:
        self.contract = Whole()
        self.token = token

    async def __call__(self, request: Message, peer: Peer) -> None:
        shown = request.get("X-Serverless-Authorization") or request.get("Authorization")
        if shown != f"Bearer {self.token}":
            await peer.answer(401 if shown is None else 403, b"<html>Forbidden</html>")
            return
        await self.contract(request, peer)


@pytest.fixture
def closed(background: BackgroundServers) -> ScriptedBackend:
    return background.backend(Closed("opensesame"))


class _Google(BaseHTTPRequestHandler):
    """Google's token endpoint: an assertion for an ID token of its audience."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"id_token": self.server.token}).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service account whose key lies here; the ID token that Google gives it."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Google)
    server.token = jwt.encode({"exp": time.time() + 3600, "aud": "x"}, pem, "RS256")  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, daemon=True).start()
    account = {
        "type": "service_account",
        "client_email": "ci@p.iam.gserviceaccount.com",
        "private_key": pem.decode(),
        "token_uri": f"http://127.0.0.1:{server.server_address[1]}/token",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    yield server.token  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.fixture
def on_cloud_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this machine's addresses were Cloud Run's."""
    monkeypatch.setattr("gateway.cli.support.backend_credentials.is_cloud_run", lambda url: True)


@pytest.mark.usefixtures("on_cloud_run")
def test_cloud_run_is_shown_who_is_logged_in_here(
    shell: Shell, background: BackgroundServers, logged_in: str
):
    closed = background.backend(Closed(logged_in))
    shell.ok("register", "wine", closed.url)
    assert shell.model()["backends"][0]["url"] == closed.url
    assert "keeps the contract" in shell.ok("verify", closed.url, "--only", "about").out
    (first, *rest) = [request.get("X-Serverless-Authorization") for request in closed.seen[:5]]
    assert (first, set(rest)) == (None, {f"Bearer {logged_in}"}), "shown only where it is asked for"
    found = {one["subject"]: one for one in shell("doctor", "--json").json()}
    assert found["wine@1"]["text"] == f"ready at {closed.url}"


@pytest.mark.usefixtures("on_cloud_run", "logged_in")
@pytest.mark.parametrize(("verb", "code"), [(("register", "wine"), 77), (("verify",), 69)])
def test_an_account_without_the_role_is_told_which(
    shell: Shell, closed: ScriptedBackend, verb: tuple[str, ...], code: int
):
    ended = shell(*verb, closed.url)
    assert ended.code == code
    assert "roles/run.invoker" in ended.err


@pytest.mark.usefixtures("logged_in")
@pytest.mark.parametrize("verb", [("register", "wine"), ("verify",)])
def test_nobody_else_is_shown_our_identity(shell: Shell, closed: ScriptedBackend, verb: tuple[str, ...]):
    ended = shell(*verb, closed.url)
    assert ended.code == 77
    assert "asks for credentials" in ended.err
    assert "--header" in ended.err
    assert {request.get("X-Serverless-Authorization") for request in closed.seen} == {None}


def test_what_header_says_is_shown(shell: Shell, closed: ScriptedBackend):
    given = ("--header", "Authorization: Bearer opensesame")
    shell.ok("register", "wine", closed.url, *given)
    assert "keeps the contract" in shell.ok("verify", closed.url, "--only", "about", *given).out
    assert shell("register", "wine", closed.url, "--header", "Authorization").code == 64
    assert "opensesame" not in json.dumps(shell.model())


@pytest.mark.usefixtures("on_cloud_run")
def test_somebody_who_is_not_logged_in_is_told_how(
    shell: Shell, closed: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "broken.json").write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "broken.json"))
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.parent.mkdir()
    monkeypatch.setenv("PATH", str(gcloud.parent))
    ended = shell("register", "wine", closed.url)
    assert ended.code == 77
    assert "gcloud auth login" in ended.err
    gcloud.write_text("#!/bin/sh\necho opensesame\n")
    gcloud.chmod(0o755)
    shell.ok("register", "wine", closed.url)


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("https://wine-abc-ew.a.run.app", True),
        ("https://wine-123.europe-west1.run.app/base", True),
        ("http://wine-abc.a.run.app", False),
        ("https://run.app.example.com", False),
        ("https://evilrun.app", False),
        ("https://example.com/.run.app", False),
        ("https://x@example.com?.run.app", False),
    ],
)
def test_what_is_cloud_run(url: str, is_one: bool):
    from gateway.cli.support.backend_credentials import is_cloud_run

    assert is_cloud_run(url) is is_one
