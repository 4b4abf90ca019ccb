"""Text from people forges no line, whatever the command: every verb that prints what a registry holds is tried."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from gateway.cli import app
from gateway.core.escape_unprintable import printable_own_lines
from gateway.registry.base import (
    BUDGETS,
    EVIDENCE,
    KEYS,
    MODELS,
    NETWORKS,
    PRICES,
    REVOCATIONS,
    ROLLOUTS,
    Delete,
    Put,
)
from gateway.registry.sqlite import SqliteRegistry
from tests.unit.cli.shell import Ended, Shell

MARK = "FORGED"
EVIL = f"x\n{MARK} 1\r{MARK} 2\u2028{MARK} 3\x85{MARK} 4\x1b[2K\x1b[1A{MARK} 5\x9b2J\u202e\u2066{MARK}\u200b\x7f\ufeff"
DIGEST = "ab" * 32

# What each verb is called with; None and why: it prints nothing that a registry holds.
TRIED: dict[str, list[list[str]] | str] = {
    "models": [["models"]],
    "show": [["show", "wine"], ["show", "spoilt"]],
    "history": [
        ["history"],
        ["history", "wine"],
        ["history", "--kind", "keys"],
        ["history", "--kind", "networks"],
    ],
    "audit": [["audit", "--at", "2999-01-01T00:00Z"], ["audit", "--verify"]],
    "keys": [["keys", "list"], ["keys", "show", DIGEST[:12]]],
    "networks": [["networks", "list"]],
    "diff": [["diff", "one", "other"]],
    "explain-access": [["explain-access", DIGEST[:12], "wine"], ["explain-access", DIGEST[:12], "spoilt"]],
    "traffic": [["traffic", "wine"], ["traffic", "wine", "1=100"]],
    "shadow": "figures and places in answers: the same `say` and sieve",
    "doctor": [["doctor"]],
    "plan": [["plan"]],
    "cost": [["cost"]],
    "budget": [["budget", "list"]],
    "prices": [["prices"]],
    "rollback": [["rollback", "wine", "--to", "1", "--dry-run"], ["rollback", "wine", "--dry-run"]],
    "export": [["export"]],
    "import": [["import", "{folder}/declared.yaml", "--dry-run"]],
    "register": [
        [
            "register",
            "wine",
            "http://127.0.0.1:9",
            "--no-probe",
            "--force",
            "--version",
            "1",
            "--reason",
            EVIL,
        ]
    ],
    "canary": [["canary", "wine", "--hold", "--reason", EVIL], ["canary", "wine"], ["canary", "spoilt", "9"]],
    "rollouts": [["rollouts", "list"]],
    "evidence": [["evidence", "wine@1"]],
    "enable": [["enable", "wine", "--reason", EVIL]],
    "disable": [["disable", "wine", "--reason", EVIL]],
    "deregister": [["deregister", "wine", "--yes", "--reason", EVIL]],
    **dict.fromkeys(
        ("sign-off", "request-approval", "approve", "reject", "approvals", "promote"),
        "people and digests; titles and reasons by the same `say` and sieve",
    ),
    "watch": "the lines of history (print_change)",
    "top": "models' names, which the registry holds to a-z, 0-9, - and _: test_the_picture_of_top",
    "tail": "requests: tests/unit/telemetry",
    "why": "requests: the same `say` and sieve",
    "check": "settings",
    "env": "environments",
    "serve": "the gateway's log: tests/unit/telemetry",
    "version": "nothing",
    "verify": "what a backend says: the same sieve",
    **dict.fromkeys(
        ("publish", "deploy", "undeploy", "artifacts", "new", "import-model"), "artifacts and folders"
    ),
    **dict.fromkeys(("ps", "up", "logs", "restart", "stop"), "processes of this machine"),
}


def test_every_verb_is_tried_or_said_why_not():
    group = typer.main.get_command(app)
    assert set(group.commands) <= TRIED.keys()  # type: ignore[attr-defined]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    asyncio.run(_fill(tmp_path / "registry.db", EVIL))
    asyncio.run(_fill(tmp_path / "other.db", "other"))
    (tmp_path / "declared.yaml").write_text(
        f"chips: 1\nmodels:\n  wine:\n    description: {json.dumps('declared ' + EVIL)}\n", encoding="utf-8"
    )
    (tmp_path / "environments.toml").write_text(
        f'[one]\nregistry = "{shell.registry}"\n[other]\nregistry = "sqlite:{tmp_path}/other.db"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(tmp_path / "environments.toml"))
    return shell


async def _fill(path: Path, text: str) -> None:
    """Everything that people may write, in every kind of document, and in the history of each."""
    registry = SqliteRegistry(path)
    backend = {
        "version": "1",
        "url": "http://127.0.0.1:9",
        "platform": text,
        "artifact": text,
        "artifact_digest": text,
    }
    backend["inputs"] = backend["outputs"] = [{"name": text, "datatype": text, "shape": [-1]}]  # type: ignore[assignment]
    model: dict[str, Any] = {
        "name": "wine",
        "description": text,
        "owner": text,
        "backends": [backend],
        "traffic": {"1": 100},
    }
    model[text] = text
    key: dict[str, Any] = {"label": text, "models": ["*", text], "created": "2026-01-01T00:00:00Z"}
    key |= {"created_by": text, "note": text, "replaces": text}
    documents: list[tuple[str, str, dict[str, Any]]] = [
        (MODELS, "wine", model),
        (MODELS, "spoilt", {"name": text, "policy": text, text: text}),
        (KEYS, DIGEST, key),
        (REVOCATIONS, "cd" * 32, {"reason": text, "by": text}),
        (NETWORKS, "192.0.2.0_24", {"network": "192.0.2.0/24", "note": text}),
        (NETWORKS, "none", {"network": text, "note": text}),
        (ROLLOUTS, "wine", _rollout(text)),
        (ROLLOUTS, "spoilt", {text: text}),
        (EVIDENCE, "wine@1:verify", _evidence(text)),
        (EVIDENCE, "wine@1:other", {text: text}),
        (BUDGETS, f"key:{text}", {"scope": "key", "name": text, "amount_micros": 1, "note": text}),
        (PRICES, text, {text: text}),
    ]
    for revision in (0, 1):
        for kind, name, body in documents:
            changed = {**body, "description": f"{revision} {text}"} if kind == MODELS else body
            await registry.write(
                Put(kind=kind, name=name, body=changed, expected=revision), author=text, reason=text
            )
    await registry.close()


def _evidence(text: str) -> dict[str, Any]:
    about = {"model": "wine", "version": "1", "sort": "verify", "passed": True, "facts": {text: text}}
    return {**about, "summary": text, "backend": text, "artifact_digest": text, "image": text}


def _rollout(text: str) -> dict[str, Any]:
    return {
        "model": "wine",
        "id": text,
        "candidate": "2",
        "stable": "1",
        "plan": {},
        "reason": text,
        "by": text,
        "traffic": {"1": 100},
        "versions": {"1": text, "2": text},
        "steps": [{"percent": 0, "state": "held", "reason": text, "evidence": {text: text}}],
    }


def assert_unforged(ended: Ended) -> None:
    for text in (ended.out, ended.err):
        assert printable_own_lines(text) == text, "something in it does not show"
        for line in text.splitlines():
            assert not line.lstrip(" │┃").startswith(MARK), text


@pytest.mark.parametrize("verb", [verb for verb, tried in TRIED.items() if isinstance(tried, list)])
@pytest.mark.parametrize("as_json", [False, True], ids=["for-people", "for-machines"])
def test_no_text_forges_a_line(verb: str, as_json: bool, shell: Shell, tmp_path: Path):
    told = False
    for words in TRIED[verb]:
        filled = [
            word.replace("{registry}", shell.registry).replace("{folder}", str(tmp_path)) for word in words
        ]
        ended = shell(*filled, *(["--json"] if as_json else []))
        assert_unforged(ended)
        told = told or MARK in ended.out + ended.err
        if as_json and ended.out and "No such option" not in ended.out:
            json.loads(ended.out)
    assert (
        told
        or as_json
        or verb in {"enable", "disable", "traffic", "doctor", "plan", "deregister", "register"}
    )


def test_what_is_exported_is_imported_as_it_was(shell: Shell, tmp_path: Path):
    shell.ok(
        "register", "beer", "http://127.0.0.1:9", "--no-probe", "--force", "--version", "1", "--owner", EVIL
    )
    shell.ok("deregister", "spoilt", "--yes")
    asyncio.run(_remove_what_no_import_takes(tmp_path / "registry.db"))
    exported = shell.ok("export").out
    other = f"sqlite:{tmp_path}/third.db"
    (tmp_path / "all.yaml").write_text(exported, encoding="utf-8")
    shell.ok("import", str(tmp_path / "all.yaml"), "--yes", "--registry", other)
    for name in ("beer", "wine"):
        assert shell.ok("show", name, "--json", "--registry", other).json()["owner"] == EVIL


async def _remove_what_no_import_takes(path: Path) -> None:
    registry = SqliteRegistry(path)
    for kind, name in ((NETWORKS, "none"), (PRICES, EVIL)):
        await registry.write(Delete(kind=kind, name=name, expected=2), author="ana")
    await registry.close()


def test_the_picture_of_top():
    from gateway.cli.observe.top import _picture
    from gateway.cli.support import console

    figures: dict[str, Any] = dict.fromkeys(
        ("rps", "failed_share", "p50_ms", "p99_ms", "in_flight", "overhead_p99_ms", "workers"), 1.0
    )
    version = {**figures, "version": EVIL, "traffic": 100}
    board = {
        "gateway": figures,
        "registry": {"generation": 1, "connected": False, "age_s": 1.0},
        "models": [{**figures, "name": EVIL, "latency_s": None, "versions": [version]}],
    }
    with console.out.capture() as caught:
        console.out.print(_picture(board, "name", 5))
    assert_unforged(Ended(0, caught.get(), ""))
