"""`chips promote` asks the backend of the environment it goes to what it serves, and refuses another version or artifact."""

import asyncio
from pathlib import Path

import pytest

from gateway.cli.support import console
from gateway.registry.base import MODELS, Put
from gateway.registry.sqlite import SqliteRegistry
from tests.flow.background_servers import BackgroundServers
from tests.flow.contract import Contract
from tests.flow.scripted import Message, Peer
from tests.flow.test_cli_register_services import site
from tests.unit.cli.shell import Shell

DIGEST = "sha256:" + "a" * 64


async def _register(path: Path, digest: str) -> None:
    registry = SqliteRegistry(path)
    backend = {"version": "4", "url": "http://qa"} | ({"artifact_digest": digest} if digest else {})
    body = {"name": "wine", "backends": [backend], "traffic": {"4": 100}}
    await registry.write(Put(kind=MODELS, name="wine", body=body, expected=0), author="ana")
    await registry.close()


@pytest.mark.parametrize(
    ("approved", "parameters", "version", "told"),
    [
        ("", {}, "4", ""),
        ("", {}, "5", "serves version 5, not 4"),
        ("", {"artifact_digest": DIGEST}, "4", f"serves another artifact: {DIGEST}, not none"),
        (DIGEST, {}, "4", "serves another artifact: it names none"),
        (DIGEST, {"artifact_digest": "sha256:" + "b" * 64}, "4", "serves another artifact: sha256:bbb"),
    ],
)
def test_the_backend_there_must_serve_what_was_approved(
    shell: Shell,
    background: BackgroundServers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    approved: str,
    parameters: dict[str, str],
    version: str,
    told: str,
):
    asyncio.run(_register(tmp_path / "qa.db", approved))
    monkeypatch.setattr(
        "gateway.cli.signoff.promote._check_stores", lambda *_: None
    )  # there is no artifact here
    backend = background.backend(Contract("wine", version, parameters=parameters))
    words = ("--from", f"sqlite:{tmp_path}/qa.db", "--to", f"sqlite:{tmp_path}/prod.db", "--url", backend.url)
    ended = shell("promote", "wine@4", *words, "--yes")
    if not told:
        assert "it was never verified" in ended.err  # neither in qa nor here
        ended = shell("promote", "wine@4", *words, "--yes", "--force")
        assert ended.code == 0, ended
        assert "promoted  wine@4" in ended.out
        return
    assert ended.code == console.EX_DATAERR
    assert told in ended.err
    monkeypatch.setenv("CHIPS_REGISTRY", f"sqlite:{tmp_path}/prod.db")
    assert shell.ok("models", "--json").json() == []


def test_a_backend_that_answers_only_known_callers(
    shell: Shell, background: BackgroundServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As a private service of Cloud Run does."""
    asyncio.run(_register(tmp_path / "qa.db", ""))
    contract = Contract("wine", "4")

    async def closed(request: Message, peer: Peer) -> None:
        if request.get("Authorization") == "Bearer opensesame":
            await contract(request, peer)
        else:
            await peer.answer(403, b"")

    words = ("--from", f"sqlite:{tmp_path}/qa.db", "--to", f"sqlite:{tmp_path}/prod.db", "--force", "--yes")
    told = ("promote", "wine@4", *words, "--url", background.backend(closed).url)
    refused = shell(*told)
    assert (refused.code, "--header" in refused.err) == (77, True), refused
    assert "promoted  wine@4" in shell.ok(*told, "--header", "Authorization: Bearer opensesame").out


def test_a_server_of_another_kind_is_promoted_unasked(
    shell: Shell, background: BackgroundServers, tmp_path: Path
):
    asyncio.run(_register(tmp_path / "qa.db", ""))
    words = ("--from", f"sqlite:{tmp_path}/qa.db", "--to", f"sqlite:{tmp_path}/prod.db", "--force", "--yes")
    told = ("promote", "wine@4", *words, "--url", background.backend(site({})).url)
    refused = shell(*told)
    assert (refused.code, "--no-probe" in refused.err) == (76, True), refused
    shell.ok(*told, "--no-probe")
