"""The command line on a Firestore registry, and the fallback that whoever writes keeps for all gateways."""

from pathlib import Path

import pytest

from gateway.registry.fallback import open_fallback
from tests.gcs.fixture import Gcs
from tests.unit.cli.shell import Shell


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], firestore: str
) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("CHIPS_REGISTRY", firestore)
    return shell


def test_every_verb_that_reads_or_writes(shell: Shell):
    shell.register("wine", "1", "--reason", "first")
    shell.register("wine", "2")
    shell.ok("traffic", "wine", "1=50", "2=50")
    shell.ok("disable", "wine")
    shell.ok("enable", "wine")
    key = shell.ok("keys", "create", "app").out.strip()
    shell.ok("keys", "revoke", shell.ok("keys", "list", "--json").json()[0]["id"])
    shell.ok("networks", "add", "192.0.2.0/24")
    assert shell.ok("networks", "list", "--json").json()[0]["network"] == "192.0.2.0/24"
    shell.ok("rollback", "wine", "--to", "1", "--yes")
    assert [backend["version"] for backend in shell.model()["backends"]] == ["1"]
    shell.ok("export", "out.yaml")
    shell.ok("deregister", "wine", "--yes")
    assert shell.ok("models", "--json").json() == []
    shell.ok("import", "out.yaml", "--yes")
    assert shell.model()["revision"] == 8
    history = shell.ok("history", "--json").json()
    assert [change["generation"] for change in history] == sorted(
        (change["generation"] for change in history), reverse=True
    )
    assert key not in str(history)


async def test_whoever_writes_keeps_the_fallback(shell: Shell, gcs: Gcs, monkeypatch: pytest.MonkeyPatch):
    import asyncio

    url = f"gs://{gcs.bucket}/chips/fallback.gz"
    monkeypatch.setenv("CHIPS_REGISTRY_FALLBACK", url)
    for number, name in enumerate(("wine", "beer"), 1):
        await asyncio.to_thread(shell.register, name)
        kept = await open_fallback(url).load()
        assert kept is not None
        assert kept.listing.generation == number
    gcs.fault(status=503, path="fallback", times=9)
    ended = await asyncio.to_thread(shell.register, "tea")
    assert "the fallback is not up to date" in ended.err
    gcs.clear()
    await asyncio.to_thread(shell.ok, "models")
    kept = await open_fallback(url).load()
    assert kept is not None
    assert kept.listing.generation == 2, "reading refreshes nothing"
