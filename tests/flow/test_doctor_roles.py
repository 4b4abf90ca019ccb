"""`chips doctor` reads who holds which role in the project: from a server that answers as Google's Resource Manager does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.shell import Shell
from tests.unit.cli.sign_off_stage import Stage
from tests.unit.signoff.people import People

DATASTORE = 'resource.name == "projects/acme/databases/{}"'


class ResourceManager(ThreadingHTTPServer):
    """Answers `getIamPolicy` with `bindings`, or with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bindings: list[dict[str, Any]] = []
        self.status = 200
        self.asked: list[tuple[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: ResourceManager

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body)))
        content = json.dumps({"version": 3, "bindings": self.server.bindings}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[ResourceManager]:
    server = ResourceManager()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv(
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER", f"http://127.0.0.1:{server.server_port}"
    )
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def stage(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    path = tmp_path / "environments.toml"
    path.write_text(
        f'[qa]\nregistry = "sqlite://{tmp_path}/qa.db"\n'
        f'[prod]\nregistry = "sqlite://{tmp_path}/prod.db"\nproject = "acme"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(path))
    monkeypatch.delenv("CHIPS_REGISTRY")
    (tmp_path / "people").mkdir()
    return Stage(shell, tmp_path, People(tmp_path / "people"))


def found(stage: Stage) -> list[tuple[str, str]]:
    every = stage.shell("--env", "prod", "doctor", "--json").json()
    return [(one["outcome"], one["text"]) for one in every if one["subject"] == "roles in acme"]


def test_an_approver_who_deploys_is_found(stage: Stage, manager: ResourceManager):
    manager.bindings = [
        {"role": "roles/run.developer", "members": ["user:Bea@example.com", "user:ops@example.com"]},
        {"role": "roles/run.viewer", "members": ["user:dan@example.com"]},
        {"role": "projects/acme/roles/chipsRegistrar", "members": ["user:dan@example.com"]},
    ]
    text = "Bea@example.com approves by the sign-off policy, and may deploy by roles/run.developer"
    assert found(stage) == [("wrong", text)]
    assert manager.asked == [
        ("/v3/projects/acme:getIamPolicy", {"options": {"requestedPolicyVersion": 3}}),
    ]


def test_who_may_erase_is_found(stage: Stage, manager: ResourceManager):
    manager.bindings = [
        {"role": "roles/owner", "members": ["user:root@example.com", "deleted:user:old@example.com?uid=1"]},
        {
            "role": "roles/datastore.user",
            "members": ["serviceAccount:figures@acme.iam.gserviceaccount.com"],
            "condition": {"expression": DATASTORE.format("figures")},
        },
    ]
    texts = [text for outcome, text in found(stage) if outcome == "warning"]
    assert "user:root@example.com may erase what the registry or its stores hold, by roles/owner" in texts
    assert not any("figures@" in text or "old@" in text for text in texts)


def test_roles_that_hold_apart_are_well(stage: Stage, manager: ResourceManager):
    manager.bindings = [{"role": "roles/run.developer", "members": ["user:ops@example.com"]}]
    assert found(stage) == [("ok", "no approver deploys, and nobody may erase the registry")]


def test_what_cannot_be_read_is_said(stage: Stage, manager: ResourceManager):
    manager.status = 403
    ((outcome, text),) = found(stage)
    assert (outcome, "roles/iam.securityReviewer" in text) == ("skipped", True)
    manager.status = 500
    assert found(stage)[0][0] == "warning"
