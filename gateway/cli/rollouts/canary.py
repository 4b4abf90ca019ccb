"""`chips canary`: shift traffic to a new version step by step. Each step is taken as the evidence allows."""

import re
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import typer

from gateway.cli.models.sticky_option import with_sticky_option
from gateway.cli.rollouts.canary_status import print_status, read_status
from gateway.cli.support import console
from gateway.cli.support.check_evidence_before_traffic import ForceOption, check_verified
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.core.model import Model, parse_model
from gateway.core.model_updates import merge_document, to_document
from gateway.core.rollout_document import Rollout, RolloutPlan, new_rollout, with_traffic
from gateway.registry.base import MODELS, ROLLOUTS, Document, Put, Registry
from gateway.registry.snapshot import read_rollout
from gateway.rollout.decision import abort as aborted
from gateway.rollout.decision import hold as held
from gateway.rollout.decision import resume as resumed

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PLAN = "The plan"
_RUNNING = "A rollout that is under way"


def canary(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[
        str | None, typer.Argument(help="The new version; it is registered already, and takes no traffic.")
    ] = None,
    steps: Annotated[
        str, typer.Option(help="Its shares, in percent, one after the other.", rich_help_panel=_PLAN)
    ] = "1,5,25,50,100",
    every: Annotated[
        str, typer.Option(help="How long a step lasts at least: 30s, 10m, 2h.", rich_help_panel=_PLAN)
    ] = "10m",
    min_requests: Annotated[
        int, typer.Option(help="Requests of the new version at each step.", rich_help_panel=_PLAN)
    ] = 500,
    max_errors: Annotated[
        str,
        typer.Option(
            help="How much higher its share of errors may be than the stable version's.",
            rich_help_panel=_PLAN,
        ),
    ] = "+0.5%",
    slower: Annotated[
        str,
        typer.Option(help="How much slower its 95th and 99th percentile may be.", rich_help_panel=_PLAN),
    ] = "20%",
    go_on_after: Annotated[
        str | None,
        typer.Option(
            help="Take a step undecided after so long; otherwise it waits for evidence.",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="The last step waits for --resume.", rich_help_panel=_PLAN)
    ] = False,
    webhook: Annotated[
        str, typer.Option(help="Address that is told of each step, signed.", rich_help_panel=_PLAN)
    ] = "",
    window: Annotated[str, typer.Option(help="How often gateways report.", rich_help_panel=_PLAN)] = "15s",
    settle: Annotated[
        str,
        typer.Option(help="After a step, times are not judged for so long.", rich_help_panel=_PLAN),
    ] = "30s",
    min_gateways: Annotated[
        int, typer.Option(help="Gateway processes that must report for a step to end.", rich_help_panel=_PLAN)
    ] = 1,
    sticky: Annotated[
        str | None,
        typer.Option(
            "--sticky",
            metavar="BY",
            help="From its first step on the same version each time for the same caller, key, header:NAME or field:NAME; off: draw "
            "each request by itself. Otherwise as it is.",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Show it, with its evidence.", rich_help_panel=_RUNNING)
    ] = False,
    hold: Annotated[
        bool,
        typer.Option(
            "--hold", help="Stay at this step; it still returns if it is worse.", rich_help_panel=_RUNNING
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on, or confirm the last step.", rich_help_panel=_RUNNING)
    ] = False,
    abort: Annotated[
        bool,
        typer.Option(
            "--abort", help="Give all traffic back to the stable version.", rich_help_panel=_RUNNING
        ),
    ] = False,
    force: ForceOption = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Give a new version its share of the traffic step by step.

    It advances, or returns to 0 %, by what the fleet sees.

    A controller takes the steps: `chips serve` on a laptop, `chips rollouts run` for a fleet.

    Examples:

    `chips canary wine 4`

    `chips canary wine 4 --steps 5,50,100 --every 30m --max-errors +0.1% --slower 10% --confirm`

    `chips canary wine 4 --sticky caller`

    `chips canary wine --status`

    `chips canary wine --hold --reason "the campaign begins"`
    """
    asked = [
        option for option, given in _flags(status=status, hold=hold, resume=resume, abort=abort) if given
    ]
    if len(asked) > 1 or (asked and version is not None):
        raise Failure("give either a version, or one of --status, --hold, --resume, --abort", code=EX_USAGE)
    if version is None:
        _check_no_plan(context)
        asked = asked or ["--status"]
    if asked and asked != ["--status"]:
        facts = console.with_registry(
            registry_url, lambda registry: _move(registry, name, asked[0], console.author_name(by), reason)
        )
    elif asked:
        facts = console.with_registry(registry_url, lambda registry: read_status(registry, name))
    else:
        plan = RolloutPlan(
            steps=_steps(steps),
            every_s=_duration("--every", every),
            min_requests=min_requests,
            max_errors=_share("--max-errors", max_errors),
            slower=_share("--slower", slower),
            confirm=confirm,
            undecided_after_s=None if go_on_after is None else _duration("--go-on-after", go_on_after),
            window_s=_duration("--window", window),
            settle_s=_duration("--settle", settle),
            min_gateways=min_gateways,
            webhook=webhook,
        )
        if webhook:
            console.note("the controller signs what the webhook gets with rollouts.webhook_secret_file")
        author = console.author_name(by)
        facts = console.with_registry(
            registry_url,
            lambda registry: _begin(
                registry, name, version or "", plan, author, reason, sticky=sticky, force=force
            ),
        )
    if as_json:
        console.print_json(facts)
    else:
        print_status(facts)


def _check_no_plan(context: typer.Context) -> None:
    """A rollout that is under way keeps its plan, so a new one must not look as if it counted. Raises Failure."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if getattr(parameter, "rich_help_panel", None) == _PLAN
        and (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise Failure(
            f"{', '.join(given)}: a plan is given together with the new version, and does not change after that",
            hint="to change it, end the rollout with --abort and begin another one",
            code=EX_USAGE,
        )


def _flags(**given: bool) -> list[tuple[str, bool]]:
    return [(f"--{name}", value) for name, value in given.items()]


async def _begin(
    registry: Registry,
    name: str,
    version: str,
    plan: RolloutPlan,
    author: str,
    reason: str,
    *,
    sticky: str | None,
    force: bool,
) -> dict[str, Any]:
    """The rollout, and what the model's shares stick to where that changes, in one write."""
    found, model = await console.find_model(registry, name)
    shares = with_sticky_option(model.sticky, sticky)
    document = await registry.read(ROLLOUTS, name)
    if document is not None:
        under_way = _readable(document)
        if under_way is not None and under_way.active:
            raise Failure(
                f"a rollout of {name} to version {under_way.candidate} is {under_way.state}",
                hint=f"chips canary {name} --status shows it, --abort ends it",
                code=EX_DATAERR,
            )
    try:
        rollout = new_rollout(
            model, version, plan, identity=uuid4().hex[:12], by=author, reason=reason or "begun"
        )
    except ValueError as error:
        raise Failure(
            str(error),
            hint=f"`chips canary --help` explains the plan; chips traffic {name} shows the split",
            code=EX_DATAERR,
        ) from None
    forced = await check_verified(registry, model, [version], force=force)
    if forced:
        rollout = msgspec.structs.replace(rollout, reason=f"{rollout.reason}; {forced}")
    expected = document.revision if document is not None else 0
    changes = [Put(kind=ROLLOUTS, name=name, body=to_document(rollout), expected=expected)]
    if shares != model.sticky:
        body = merge_document(found.body, msgspec.structs.replace(model, sticky=shares))
        changes.append(Put(kind=MODELS, name=name, body=body, expected=found.revision))
    await registry.write(*changes, author=author, reason=rollout.reason)
    return await read_status(registry, name)


async def _move(registry: Registry, name: str, option: str, author: str, reason: str) -> dict[str, Any]:
    """Hold, resume or abort: the rollout, and the model's traffic where that changes, in one write."""
    document = await registry.read(ROLLOUTS, name)
    if document is None:
        raise Failure(f"there is no rollout of {name}", hint=f"chips canary {name} VERSION", code=EX_DATAERR)
    rollout = _rollout(document)
    found = await registry.read(MODELS, name)
    model = _model(found)
    try:
        if option == "--hold":
            new = held(rollout, reason)
        elif option == "--resume":
            new = resumed(rollout, model, reason)
        else:
            new = aborted(rollout, model, reason)
    except ValueError as error:
        raise Failure(
            str(error),
            hint=f"chips canary {name} --status shows it; chips traffic {name} VERSION=PERCENT… splits the traffic by hand",
            code=EX_DATAERR,
        ) from None
    changes = [Put(kind=ROLLOUTS, name=name, body=to_document(new), expected=document.revision)]
    by_hand = option == "--abort" and new.traffic == rollout.traffic
    if found is not None and model is not None and not by_hand and dict(model.traffic) != new.traffic:
        body = merge_document(found.body, with_traffic(model, new.traffic))
        changes.append(Put(kind=MODELS, name=name, body=body, expected=found.revision))
    await registry.write(*changes, author=author, reason=new.reason)
    return await read_status(registry, name)


def _readable(document: Document) -> Rollout | None:
    try:
        return read_rollout(document)
    except ValueError:
        return None


def _rollout(document: Document) -> Rollout:
    try:
        return read_rollout(document)
    except ValueError as error:
        raise Failure(
            f"what the registry holds for the rollout of {document.name} cannot be read: {error}",
            hint=f"chips canary {document.name} VERSION begins another one",
            code=EX_DATAERR,
        ) from None


def _model(document: Document | None) -> Model | None:
    if document is None:
        return None
    try:
        return parse_model(document.body)
    except ValueError:
        return None


def _steps(text: str) -> tuple[int, ...]:
    parts = [part.strip().removesuffix("%").strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise Failure(
            f"--steps {text!r} is not a list of whole percentages",
            hint="such as 1,5,25,50,100",
            code=EX_USAGE,
        )
    return tuple(int(part[:4]) for part in parts)


def _duration(option: str, text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd])", text.strip())
    if found is None:
        raise Failure(f"{option} {text!r} is not a duration", hint="such as 30s, 10m, 2h, 1d", code=EX_USAGE)
    return float(found[1]) * _UNITS[found[2]]


def _share(option: str, text: str) -> float:
    found = re.fullmatch(r"\+?(\d{1,4}(?:\.\d{1,6})?)\s*%", text.strip())
    if found is None:
        raise Failure(f"{option} {text!r} is not a percentage", hint="such as +0.5% or 20%", code=EX_USAGE)
    return float(found[1]) / 100
