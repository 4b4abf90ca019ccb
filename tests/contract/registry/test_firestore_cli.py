"""The command line on a Firestore registry, and the fallback that each writer keeps for all gateways."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.registry.base import KEYS, REVOCATIONS
from gateway.registry.fallback_copy import open_fallback
from tests.firestore.emulator import Emulator
from tests.firestore.fixture import registry_url
from tests.gcs.fixture import Gcs
from tests.patience import patience
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
    shell.ok("traffic", "wine", "1=50", "2=50", "--force")
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


async def test_what_is_written_through_the_fallback_knows_the_keys(
    shell: Shell, gcs: Gcs, monkeypatch: pytest.MonkeyPatch
):
    url = f"gs://{gcs.bucket}/chips/fallback.gz"
    monkeypatch.setenv("CHIPS_REGISTRY_FALLBACK", url)
    await asyncio.to_thread(shell.ok, "keys", "create", "app")
    await asyncio.to_thread(shell.register, "wine")
    kept = await open_fallback(url).load()
    assert kept is not None
    assert kept.keys is not None
    (digest,) = kept.keys.documents
    await asyncio.to_thread(shell.ok, "keys", "revoke", digest[:12])
    kept = await open_fallback(url).load()
    assert kept is not None
    assert kept.keys is not None
    assert kept.keys.documents == {}
    assert [document.name for document in kept.listing.documents if document.kind == REVOCATIONS] == [digest]


def test_history_tells_the_difference_and_rollback_undoes_it(shell: Shell):
    shell.register("wine", "1", "--by", "ana", "--reason", "first")
    shell.register("wine", "2", "--by", "bea")
    shell.register("beer")
    shell.ok("traffic", "wine", "1=50", "2=50", "--force", "--by", "ana", "--reason", "half each")
    ended = shell.ok("history", "wine")
    assert ended.out.splitlines()[0].startswith("changed   models/wine revision 3, generation 4, 20")
    assert ended.out.splitlines()[0].endswith("by ana: half each; forced: version 2: it was never verified")
    assert "traffic.1: 100 → 50" in ended.out
    assert "beer" not in ended.out
    assert len(shell.ok("history", "--json", "--limit", "2").json()) == 2
    assert "models/" not in shell.ok("history", "--kind", "keys").out
    assert shell.ok("rollback", "wine", "--dry-run", "--json").json()["written"] is False
    shell.ok("rollback", "wine", "--yes", "--by", "cy")
    model = shell.model()
    assert (model["revision"], model["traffic"]) == (4, {"1": 100, "2": 0})
    assert model["changed"]["by"] == "cy"
    shell.ok("deregister", "wine", "--yes")
    shell.ok("rollback", "wine", "--to", "3", "--yes")
    assert shell.model()["traffic"] == {"1": 50, "2": 50}
    ended = shell("rollback", "wine", "--to", "99", "--yes")
    assert ended.code == 65
    assert "it has 1 to 6" in ended.err


def test_export_and_import_between_registries(shell: Shell, tmp_path: Path, firestore: str):
    shell.register("wine", "1", "--owner", "ana", "--description", "Ünï")
    shell.register("beer")
    shell.ok("networks", "add", "192.0.2.0/24", "2001:db8::/32", "--note", "office")
    shell.ok("export", "out.yaml")
    assert "unchanged" in shell.ok("import", "out.yaml", "--prune").out
    other = f"{firestore}&prefix=other"
    ended = shell.ok("import", "out.yaml", "--dry-run", "--registry", other)
    assert "add       models/wine" in ended.out
    assert shell.ok("models", "--json", "--registry", other).json() == []
    shell.ok("import", "out.yaml", "--yes", "--registry", other)
    assert shell.ok("export", "--registry", other).out == (tmp_path / "out.yaml").read_text()
    assert {change["generation"] for change in shell.ok("history", "--json", "--registry", other).json()} == {
        1
    }
    # One that is wrong takes all with it, and nothing is written.
    text = (tmp_path / "out.yaml").read_text().replace("owner: ana", "owner: bea")
    (tmp_path / "wrong.yaml").write_text(text.replace("127.0.0.1:9/beer-1", "nowhere at all"))
    ended = shell("import", "wrong.yaml", "--yes")
    assert ended.code != 0
    assert shell.model()["owner"] == "ana"


def test_networks_come_and_go(shell: Shell):
    shell.ok("networks", "add", "192.0.2.0/24", "2001:db8::/32", "--note", "office")
    assert "unchanged" in shell.ok("networks", "add", "192.0.2.0/24").out
    shell.ok("networks", "remove", "192.0.2.0/24", "--reason", "moved out")
    assert [found["network"] for found in shell.ok("networks", "list", "--json").json()] == ["2001:db8::/32"]
    ended = shell("networks", "remove", "192.0.2.0/24")
    assert ended.code == 65
    assert "is not in the registry" in ended.err
    shell.ok("networks", "add", "192.0.2.0/24")


def test_watch_tells_each_change_as_it_happens(shell: Shell):
    process = shell.start_watching()
    assert process.stdout is not None
    # One write with two changes is two lines, in their order; what the watch does not mirror is told too.
    shell.ok("networks", "add", "192.0.2.0/24", "2001:db8::/32")
    names = [json.loads(process.stdout.readline())["name"] for _ in range(2)]
    assert names == ["192.0.2.0_24", "2001:db8::_32"]
    shell.ok("keys", "create", "app")
    assert json.loads(process.stdout.readline())["kind"] == KEYS
    process.terminate()
    process.communicate(timeout=patience(60))


def test_a_registry_that_was_killed_is_told_and_nothing_is_written(
    own_emulator: Emulator, shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CHIPS_REGISTRY", registry_url(own_emulator))
    shell.register("wine")
    own_emulator.kill()
    for arguments in (
        ("models",),
        ("history",),
        ("disable", "wine"),
        ("networks", "add", "192.0.2.0/24"),
        ("keys", "create", "app"),
    ):
        ended = shell(*arguments)
        assert ended.code == 69, ended
        assert "does not answer" in ended.err
        assert ended.out == ""
    assert "Nothing was written." in shell("keys", "create", "app").err
