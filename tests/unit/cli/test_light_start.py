"""A command imports what it needs itself, and no more: most of its start is imports."""

import subprocess
import sys

import pytest

from gateway.cli import app
from gateway.cli.support.lazy_commands import LazyCommand, LazyCommands

HEAVY = ("aiohttp", "google.cloud", "opentelemetry", "requests", "yaml", "gateway.app", "gateway.deploy")


@pytest.mark.parametrize(
    "module",
    [
        "gateway.cli",
        "gateway.cli.models.list_and_show_models",
        "gateway.cli.models.traffic",
        "gateway.cli.models.deregister_disable_enable",
        "gateway.cli.access.keys",
        "gateway.cli.access.networks",
        "gateway.cli.observe.why",
        "gateway.cli.observe.tail",
        "gateway.cli.observe.top",
        "gateway.cli.registry.history",
    ],
)
def test_a_command_for_every_day_imports_nothing_heavy(module: str):
    script = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_each_command_is_where_the_table_says_and_has_a_help():
    import typer.main

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {"register", "why", "keys", "import", "explain-access", "serve"} <= set(commands)
    for name, command in commands.items():
        assert command.name == name
        assert command.help, name


def test_a_command_is_imported_when_it_is_first_asked_for():
    commands = LazyCommands({}, {"lost": LazyCommand("gateway.cli.no_such_module", "lost", "Panel")})
    assert list(commands) == ["lost"]
    assert "lost" in commands
    with pytest.raises(ModuleNotFoundError):
        commands["lost"]
