"""`chips`: the command line. Each verb is a function in a file of its own; this one lists them and ends them well."""

import sys
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import typer

from gateway import __version__
from gateway.cli.support import console
from gateway.cli.support.lazy_commands import LazyCommand, lazy_group
from gateway.registry.base import Conflict, RegistryError
from gateway.settings import SettingsError

_MODELS = "Models and traffic"
_DEPLOY = "Build and deploy"
_LOCAL = "Backends on this machine"
_ACCESS = "Who may call"
_OBSERVE = "Look at what happens"
_COST = "What it costs"
_REGISTRY = "The registry and its history"
_SIGN_OFF = "Approvals and promotion"
_SETUP = "The gateway and this machine"
# By name: the module, and the function or group in it. A module is imported when its command runs.
_COMMANDS: Final = {
    "register": LazyCommand("gateway.cli.models.register", "register", _MODELS),
    "models": LazyCommand("gateway.cli.models.list_and_show_models", "models", _MODELS),
    "show": LazyCommand("gateway.cli.models.list_and_show_models", "show", _MODELS),
    "traffic": LazyCommand("gateway.cli.models.traffic", "traffic", _MODELS),
    "shadow": LazyCommand("gateway.cli.models.shadow", "shadow", _MODELS),
    "canary": LazyCommand("gateway.cli.rollouts.canary", "canary", _MODELS),
    "rollouts": LazyCommand("gateway.cli.rollouts.list_rollouts_run_controller", "rollouts", _MODELS),
    "evidence": LazyCommand("gateway.cli.rollouts.version_evidence", "evidence", _MODELS),
    "enable": LazyCommand("gateway.cli.models.deregister_disable_enable", "enable", _MODELS),
    "disable": LazyCommand("gateway.cli.models.deregister_disable_enable", "disable", _MODELS),
    "deregister": LazyCommand("gateway.cli.models.deregister_disable_enable", "deregister", _MODELS),
    "new": LazyCommand("gateway.cli.deployment.new", "new", _DEPLOY),
    "import-model": LazyCommand("gateway.cli.deployment.import_model", "import_model", _DEPLOY),
    "deploy": LazyCommand("gateway.cli.deployment.deploy_undeploy", "deploy", _DEPLOY),
    "undeploy": LazyCommand("gateway.cli.deployment.deploy_undeploy", "undeploy", _DEPLOY),
    "publish": LazyCommand("gateway.cli.artifacts.publish", "publish", _DEPLOY),
    "verify": LazyCommand("gateway.cli.deployment.verify", "verify", _DEPLOY),
    "cost": LazyCommand("gateway.cli.cost.report", "cost", _COST),
    "budget": LazyCommand("gateway.cli.cost.budgets", "budget", _COST),
    "prices": LazyCommand("gateway.cli.cost.prices", "prices", _COST),
    "plan": LazyCommand("gateway.cli.deployment.cost_estimate", "plan", _DEPLOY),
    "artifacts": LazyCommand("gateway.cli.artifacts.list_show_verify_pull", "artifacts", _DEPLOY),
    "ps": LazyCommand("gateway.cli.deployment.local_backends", "ps", _LOCAL),
    "logs": LazyCommand("gateway.cli.deployment.local_backends", "logs", _LOCAL),
    "restart": LazyCommand("gateway.cli.deployment.local_backends", "restart", _LOCAL),
    "stop": LazyCommand("gateway.cli.deployment.local_backends", "stop", _LOCAL),
    "up": LazyCommand("gateway.cli.deployment.local_backends", "up", _LOCAL),
    "why": LazyCommand("gateway.cli.observe.why", "why", _OBSERVE),
    "tail": LazyCommand("gateway.cli.observe.tail", "tail", _OBSERVE),
    "top": LazyCommand("gateway.cli.observe.top", "top", _OBSERVE),
    "explain-access": LazyCommand("gateway.cli.access.explain_access", "explain_access", _ACCESS),
    "keys": LazyCommand("gateway.cli.access.keys", "keys", _ACCESS),
    "networks": LazyCommand("gateway.cli.access.networks", "networks", _ACCESS),
    "history": LazyCommand("gateway.cli.registry.history", "history", _REGISTRY),
    "audit": LazyCommand("gateway.cli.registry.audit", "audit", _REGISTRY),
    "rollback": LazyCommand("gateway.cli.models.rollback", "rollback", _REGISTRY),
    "diff": LazyCommand("gateway.cli.registry.diff_environments", "diff", _REGISTRY),
    "watch": LazyCommand("gateway.cli.registry.watch", "watch", _REGISTRY),
    "export": LazyCommand("gateway.cli.registry.export_yaml", "export", _REGISTRY),
    "import": LazyCommand("gateway.cli.registry.import_yaml", "import_models", _REGISTRY),
    "sign-off": LazyCommand("gateway.cli.signoff.sign_off_policy", "sign_off", _SIGN_OFF),
    "request-approval": LazyCommand("gateway.cli.signoff.request_approval", "request_approval", _SIGN_OFF),
    "approve": LazyCommand("gateway.cli.signoff.approve_or_reject", "approve", _SIGN_OFF),
    "reject": LazyCommand("gateway.cli.signoff.approve_or_reject", "reject", _SIGN_OFF),
    "promote": LazyCommand("gateway.cli.signoff.promote", "promote", _SIGN_OFF),
    "approvals": LazyCommand("gateway.cli.signoff.approve_or_reject", "approvals", _SIGN_OFF),
    "check": LazyCommand("gateway.cli.setup.check_settings", "check", _SETUP),
    "doctor": LazyCommand("gateway.cli.setup.doctor", "doctor", _SETUP),
    "env": LazyCommand("gateway.cli.setup.list_show_use_environments", "env", _SETUP),
}
_OF_THIS_MACHINE: Final = {"env", "import-model", "logs", "new", "ps", "restart", "stop", "up"}

app = typer.Typer(
    name="chips",
    cls=lazy_group(_COMMANDS),
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
    console.choice.commands = _COMMANDS.keys() - _OF_THIS_MACHINE


@app.command(context_settings=_PASS_THROUGH, rich_help_panel=_SETUP)
def serve(context: typer.Context) -> None:
    """Serve: start the gateway, as `python -m gateway` does. `chips serve --help` tells its flags."""
    from gateway.serve import serve as serve_gateway

    raise typer.Exit(serve_gateway(context.args))


@app.command(rich_help_panel=_SETUP)
def version(
    library: Annotated[
        Literal["python", "r", "julia"] | None,
        typer.Option("--library", help="Print instead where the backend library of this language is."),
    ] = None,
) -> None:
    """Print the version of CHIPS.

    Example: `chips version --library r`
    """
    if library is None:
        console.out.print(__version__)
        return
    from gateway.deploy.backend_libraries import BackendLibrariesNotShipped, library_folder

    try:
        console.out.print(str(library_folder(library)))
    except BackendLibrariesNotShipped as error:
        raise console.Failure(str(error)) from None


def _environment_first(given: Sequence[str]) -> list[str]:
    """`chips doctor --env prod` means `chips --env prod doctor`; `serve` has flags of its own."""
    if not given or given[0] not in _COMMANDS:
        return list(given)
    first: list[str] = []
    others: list[str] = []
    words = iter(given)
    for word in words:
        if word == "--":
            others.append(word)
            break
        if word == "--env" and (value := next(words, None)) is not None:
            first += [word, value]
        elif word.startswith("--env="):
            first.append(word)
        else:
            others.append(word)
    return [*first, *others, *words]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Every way it can end has an exit code; none shows a stack trace unless CHIPS_DEBUG is set."""
    given = _environment_first(list(sys.argv[1:] if arguments is None else arguments))
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
    from gateway.signoff.ssh_keygen_signature import SshKeygenError

    if isinstance(error, SshKeygenError):
        return console.Failure(str(error), code=console.EX_UNAVAILABLE)
    return console.Failure(
        f"{type(error).__name__}: {error}", hint="set CHIPS_DEBUG=1 to see where it happened"
    )
