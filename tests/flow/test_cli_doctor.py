"""`chips doctor`: a healthy system, and one fault after the other, each told with what mends it."""

from pathlib import Path
from typing import Any

import pytest

from tests.flow.background_servers import BackgroundServers
from tests.flow.contract import Contract
from tests.flow.scripted import Message, Peer
from tests.flow.test_cli_register_services import SERVICES, site
from tests.unit.cli.shell import Shell


def findings(shell: Shell, code: int = 0, *before: str) -> dict[str, Any]:
    ended = shell(*before, "doctor", "--json")
    assert ended.code == code, ended
    return {finding["subject"]: finding for finding in ended.json()}


def test_a_healthy_system(
    shell: Shell, background: BackgroundServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backend = background.backend(Contract(parameters={"concurrency": 2}))
    gateway = background.gateway(shell.registry)
    monkeypatch.setenv("CHIPS_SERVER__PORT", str(gateway.port))
    monkeypatch.setenv("CHIPS_ARTIFACTS", str(tmp_path / "artifacts"))
    shell.ok("register", "wine", backend.url, "--no-probe", "--force", "--version", "1", "--concurrency", "2")
    found = findings(shell)
    for subject in ("python", "settings", "artifacts", "registry", "gateway", "clock", "wine@1"):
        assert found[subject]["outcome"] == "ok", found[subject]
    out = shell.ok("doctor").out
    assert "healthy" in out
    assert "\x1b" not in out


def test_each_fault_is_told_with_what_mends_it(
    shell: Shell, background: BackgroundServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    contract = Contract(parameters={"concurrency": 2})
    backend = background.backend(contract)
    shell.ok("register", "wine", backend.url, "--no-probe", "--force", "--version", "1", "--concurrency", "2")
    shell.register("gone", "1")
    shell.register("canary", "1", "--body-limit", "99999999")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CHIPS_ARTIFACTS", str(tmp_path / "file"))
    contract.metadata["parameters"] = {"concurrency": 5}
    found = findings(shell, 1)
    assert found["gateway"]["fix"] == "chips serve"
    assert found["artifacts"]["outcome"] == "wrong"
    assert found["gone@1"]["outcome"] == "wrong"
    assert "cannot be reached" in found["gone@1"]["text"]
    assert found["wine@1"]["outcome"] == "warning"
    assert "it runs 5 at once, registered are 2" in found["wine@1"]["text"]
    contract.metadata["versions"] = ["9"]
    assert (
        "version 9" in findings(shell, 1)["wine@1"]["text"]
        or "5 at once" in findings(shell, 1)["wine@1"]["text"]
    )
    shell.ok("disable", "gone")
    shell.ok("disable", "canary")
    assert findings(shell, 1)["gone@1"]["outcome"] == "warning", "a disabled model's backend may be gone"
    assert "has problems" in shell("doctor").out


def test_settings_and_registries_that_are_wrong(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "registry.db").write_text("this is not a database, by its look")
    assert findings(shell, 1)["registry"]["outcome"] == "wrong"
    monkeypatch.setenv("CHIPS_SERVR__PORT", "1")
    assert "did you mean" in findings(shell, 1)["settings"]["text"]


def test_a_cloud_environment_without_credentials(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    monkeypatch.setenv("CHIPS_ARTIFACTS", "gs://somewhere")
    found = findings(shell, 1)
    assert found["credentials"]["outcome"] == "wrong"
    assert found["credentials"]["fix"] == "gcloud auth application-default login"


@pytest.mark.parametrize("what", ["MLflow", "MLServer", "MLServer under another name", "BentoML"])
def test_servers_of_other_kinds_are_well_as_they_are(shell: Shell, background: BackgroundServers, what: str):
    routes, (kind, _, version, _) = SERVICES[what]
    url = background.backend(site(routes)).url
    shell.ok("register", "wine", url, "--yes")
    found = findings(shell)[f"wine@{version}"]
    assert (found["outcome"], found["text"]) == ("ok", f"{kind} answers at {url}")


def test_another_server_at_the_address_of_one_of_ours_is_wrong(shell: Shell, background: BackgroundServers):
    shell.ok("register", "wine", background.backend(Contract()).url)
    url = background.backend(site(SERVICES["MLflow"][0])).url
    shell.ok("register", "wine", url, "--no-probe", "--force", "--version", "1")
    found = findings(shell, 1)["wine@1"]
    assert (found["outcome"], "not a backend as the contract describes" in found["text"]) == (
        "wrong",
        True,
    ), found


@pytest.mark.parametrize("status", [403, 404])
def test_a_service_that_nothing_is_known_of_is_well_where_it_answers(
    shell: Shell, background: BackgroundServers, status: int
):
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(status, b"")

    url = background.backend(script).url
    shell.ok("register", "wine", url, "--path", "/score", "--version", "2")
    assert findings(shell)["wine@2"]["outcome"] == "ok"
    contract = Contract("wine", "2")
    contract.routes["/v2/models/wine"] = (404, b"", [("X-Chips-Model", "wine@2")])
    shell.ok("register", "wine", background.backend(contract).url, "--no-probe", "--force", "--version", "2")
    assert findings(shell, 1)["wine@2"]["outcome"] == "wrong", "one of ours"
