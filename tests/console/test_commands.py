"""The commands that the pages show: real ones, with the right names, that take back what they say."""

import shlex
from typing import Any

import msgspec
import pytest
import typer

from gateway.cli import app
from gateway.core.model import Backend, Model, parse_model
from gateway.registry.base import MODELS, NETWORKS, Put
from tests.console.conftest import Watched
from tests.console.stage import Stage

pytestmark = pytest.mark.timeout(300)


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """The command as typer understands it: its name and its parameters. Raises where it is none."""
    program, *words = shlex.split(command)
    assert program == "chips"
    group: Any = typer.main.get_command(app)
    path = []
    while hasattr(group, "commands"):
        path.append(words.pop(0))
        group = group.commands[path[-1]]
    context = group.make_context(path[-1], words)
    return " ".join(path), {k: v for k, v in context.params.items() if v not in (None, "", False, ())}


async def shown(watched: Watched, where: str, wait_for: str) -> list[str]:
    await watched.go(where, wait_for)
    return [str(text) for text in await watched.page.locator(".command code").all_text_contents()]


async def test_every_command_is_one_and_names_what_it_stands_next_to(stage: Stage, watched: Watched):
    wine = parse_model((await stage.registry.read(MODELS, "wine")).body)  # type: ignore[union-attr]
    await stage.put(msgspec.structs.replace(wine, traffic={"1": 90, "2": 10, "3": 0}), "less of version 3")
    gone = Model(name="gone", backends=(Backend(version="1", url="http://127.0.0.1:1"),), traffic={"1": 100})
    await stage.put(gone, "its backend is away")
    network = Put(kind=NETWORKS, name="192.0.2.0_24", body={"network": "192.0.2.0/24"}, expected=0)
    await stage.registry.write(network, author="ana")
    key = await stage.make_key("*")
    answer = await stage.call("POST", "/gone", key=key)
    await stage.revoke_key(key)
    await watched.sign_in(stage.operator)
    pages = {
        "?window=1h": ".issue",
        "model/wine": "#slowest",
        "changes": ".change",
        "callers": "tbody tr",
        f"request/{answer.get('X-Request-Id')}": ".waterfall",
    }
    found = [
        command for where, wait_for in pages.items() for command in await shown(watched, where, wait_for)
    ]
    commands = [parsed(command) for command in found]
    assert {name for name, _ in commands} >= {
        *("disable", "verify", "traffic", "rollback", "deregister", "why", "history"),
        *("keys rotate", "keys revoke", "keys list", "networks remove"),
    }
    assert ("disable", {"name": "gone"}) in commands
    assert ("rollback", {"name": "wine", "to": 1}) in commands
    assert ("deregister", {"name": "gone"}) in commands
    assert any(name == "networks remove" and list(p["given"]) == ["192.0.2.0/24"] for name, p in commands)
    assert any(name == "traffic" and list(p["shares"]) == ["1=90", "2=10", "3=0"] for name, p in commands)
    assert "chips why " + str(answer.get("X-Request-Id")) in found
    with pytest.raises(Exception, match="No such option"):  # typer's own
        parsed(f"{found[0]} --no-such-option")
