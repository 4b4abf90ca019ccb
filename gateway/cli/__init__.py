"""`chips`: the command line. Each verb is a function in a file of its own; this one lists them and ends them well."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli.access.explain_access import explain_access
from gateway.cli.access.keys import keys
from gateway.cli.access.networks import networks
from gateway.cli.artifacts.artifacts import artifacts
from gateway.cli.artifacts.publish import publish
from gateway.cli.deployment.deploy import deploy, undeploy
from gateway.cli.deployment.import_model import import_model
from gateway.cli.deployment.local_backends import logs, ps, restart, stop, up
from gateway.cli.deployment.new import new
from gateway.cli.deployment.plan import plan
from gateway.cli.deployment.verify import verify
from gateway.cli.models.lifecycle import deregister, disable, enable
from gateway.cli.models.models import models, show
from gateway.cli.models.register import register
from gateway.cli.models.rollback import rollback
from gateway.cli.models.traffic import traffic
from gateway.cli.observe.tail import tail
from gateway.cli.observe.top import top
from gateway.cli.observe.why import why
from gateway.cli.registry.diff import diff
from gateway.cli.registry.export import export
from gateway.cli.registry.history import history
from gateway.cli.registry.import_ import import_models
from gateway.cli.registry.watch import watch
from gateway.cli.setup.check import check
from gateway.cli.setup.doctor import doctor
from gateway.cli.setup.environments import env
from gateway.cli.support import console
from gateway.registry.base import Conflict, RegistryError
from gateway.settings import SettingsError

app = typer.Typer(
    name="chips",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _print_version(asked: bool) -> None:
    if asked:
        console.out.print(__version__)
        raise typer.Exit


@app.callback()
def common_options(
    env: Annotated[
        str | None,
        typer.Option("--env", help="The environment to act on; otherwise CHIPS_ENV, or `chips env use`."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before a write to a protected environment.")
    ] = False,
    _: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """One address for your machine-learning models: publish them, register them, serve them."""
    console.choice.env, console.choice.yes, console.choice.told = env, yes, False


_MODELS = "Models and traffic"
_DEPLOY = "Build and deploy"
_LOCAL = "Backends on this machine"
_ACCESS = "Who may call"
_OBSERVE = "Look at what happens"
_REGISTRY = "The registry and its history"
_SETUP = "The gateway and this machine"


@app.command(context_settings=_PASS_THROUGH, rich_help_panel=_SETUP)
def serve(context: typer.Context) -> None:
    """Serve: start the gateway, as `python -m gateway` does. `chips serve --help` tells its flags."""
    from gateway.serve import serve as serve_gateway

    raise typer.Exit(serve_gateway(context.args))


@app.command(rich_help_panel=_SETUP)
def version() -> None:
    """Print the version of CHIPS."""
    console.out.print(__version__)


for panel, commands in (
    (_MODELS, (register, models, show, traffic, enable, disable, deregister)),
    (_DEPLOY, (new, import_model, deploy, undeploy, publish, verify, plan)),
    (_LOCAL, (ps, logs, restart, stop, up)),
    (_OBSERVE, (why, tail, top)),
    (_ACCESS, (explain_access,)),
    (_REGISTRY, (history, rollback, diff, watch, export)),
    (_SETUP, (check, doctor)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("import", rich_help_panel=_REGISTRY)(import_models)  # the word itself is Python's
app.add_typer(artifacts, name="artifacts", rich_help_panel=_DEPLOY)
app.add_typer(keys, name="keys", rich_help_panel=_ACCESS)
app.add_typer(networks, name="networks", rich_help_panel=_ACCESS)
app.add_typer(env, name="env", rich_help_panel=_SETUP)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Every way it can end has an exit code; none shows a stack trace unless CHIPS_DEBUG is set."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        code = app(given, standalone_mode=False)
    except Exception as error:
        from gateway.settings import wants_debug

        if wants_debug():
            raise
        console.report_failure(_failure(error), as_json=as_json)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _failure(error: Exception) -> console.Failure:
    if isinstance(error, console.Failure):
        return error
    if isinstance(error, typer.Abort):
        return console.Failure("stopped; nothing was changed", code=130)
    if isinstance(error, typer.TyperException):
        return console.Failure(str(error), hint="add --help for how it is used", code=console.EX_USAGE)
    if isinstance(error, SettingsError):
        return console.Failure(str(error), hint="`chips check` shows all settings", code=console.EX_CONFIG)
    if isinstance(error, Conflict):
        return console.Failure(str(error), code=console.EX_CONFLICT)
    if isinstance(error, RegistryError):
        return console.Failure(str(error), code=console.EX_UNAVAILABLE)
    return console.Failure(
        f"{type(error).__name__}: {error}", hint="set CHIPS_DEBUG=1 to see where it happened"
    )
