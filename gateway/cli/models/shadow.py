"""`chips shadow`: send a copy of a share of a model's requests to a candidate version. It compares the answers and reports."""

import asyncio
import re
import sys
import time
from secrets import token_hex
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.models.shadow_cost_estimate import shadow_cost_estimate
from gateway.cli.models.shadow_report import print_shadow_report
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.open_figures_store import open_figures_store
from gateway.cli.support.read_published_artifact import published_manifest
from gateway.cli.support.wait_until_gateway_serves import WatchedGatewayOption, wait_until_served
from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.core.rollout_document import backend_fingerprint
from gateway.core.shadow_document import (
    LONGEST_S,
    PureBy,
    Shadow,
    ShadowBudget,
    shadow_problems,
    utc_text,
    why_not_shadowed,
)
from gateway.core.version_evidence import SHADOW, EvidenceRecord, backend_predict_url
from gateway.cost.registry_price_tables import prices_now, read_all_price_tables
from gateway.registry.base import SHADOWS, Document, Put, Registry
from gateway.registry.evidence_records import evidence_change, image_bound_to_evidence, read_evidence
from gateway.registry.snapshot import read_shadow
from gateway.settings import Settings
from gateway.shadow.run_shadows import FIGURES
from gateway.shadow.status_summary import read_shadow_status

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LAST_REPORT_S = 3.0
_ABOUT_NOW = {"shadow", "running", "ended", "gateways", "unreadable", "unused_tolerances"}  # not the verdict


def shadow(
    name: Annotated[str, typer.Argument(help="The model.")],
    candidate: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="The version that sees the requests, too.")
    ] = None,
    percent: Annotated[float, typer.Option(help="Share of the stable version's requests.")] = 5.0,
    for_: Annotated[str, typer.Option("--for", help="How long: 30m, 24h, 7d.")] = "24h",
    noise: Annotated[
        float,
        typer.Option(
            help="Percent of those that go to the stable version once more, to see how it differs from itself."
        ),
    ] = 20.0,
    allowed: Annotated[
        float, typer.Option(help="Percent by which the candidate's answers may differ more often.")
    ] = 1.0,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            help="How far numbers may be apart, relative to the larger one above 1: 1e-3, or OUTPUT=1e-3; may be repeated. "
            "[default: 1e-6]"
        ),
    ] = None,
    max_concurrency: Annotated[
        int, typer.Option(help="Requests under way at once, in each gateway process.")
    ] = 4,
    max_rate: Annotated[float, typer.Option(help="Requests per second, in each gateway process.")] = 20.0,
    max_body: Annotated[int, typer.Option(help="Bytes of an answer; larger ones are left out.")] = 1 << 20,
    max_buffer: Annotated[
        int, typer.Option(help="Bytes of all requests and answers held, in each gateway process.")
    ] = 16 << 20,
    rps: Annotated[
        float | None, typer.Option(min=0, max=1e9, help="The model's requests a second, for the price.")
    ] = None,
    latency: Annotated[
        str, typer.Option(help="How long a prediction takes, for the price: 40ms, 1.5s.")
    ] = "100ms",
    status: Annotated[bool, typer.Option("--status", help="Show what was found so far.")] = False,
    stop: Annotated[
        bool,
        typer.Option(
            "--stop", help="End it now, show what was found, and keep it as evidence about the version."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    gateway: WatchedGatewayOption = None,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Send a share of a model's requests to another version as well, and compare.

    The callers have been answered by then.

    Callers notice nothing. It ends by itself. Both versions must be declared pure: predicting changes nothing.

    Examples:

    `chips shadow wine 4 --percent 5 --for 24h`

    `chips shadow wine --status`

    `chips shadow wine --stop`
    """
    settings = console.settings_for(registry_url)
    if candidate is None:
        if not status and not stop:
            raise Failure("name the version to try", hint="or --status, or --stop", code=EX_USAGE)
        console.run_async(_look(settings, name, stop=stop, by=by, reason=reason, as_json=as_json))
        return
    if status or stop:
        raise Failure("--status and --stop take no version", code=EX_USAGE)
    tolerances = _tolerances(tolerance or [])
    budget = ShadowBudget(
        concurrency=max_concurrency, requests_per_s=max_rate, body_bytes=max_body, buffer_bytes=max_buffer
    )
    wanted = {
        "candidate": candidate,
        "percent": percent,
        "noise_percent": noise,
        "allowed": allowed / 100,
        "until": utc_text(time.time() + _seconds(for_)),
        "budget": budget,
        "tolerance": tolerances.pop("", 1e-6),
        "tolerances": tolerances,
    }

    async def work() -> None:
        async with console.open_guarded_registry(settings) as registry:
            model, document, made = await _plan(registry, settings, name, wanted, console.author_name(by))
            tables, _ = await read_all_price_tables(registry)
            prices = prices_now(tables)
            price = shadow_cost_estimate(
                made, model, prices, rps=rps, latency=latency, seconds=_seconds(for_)
            )
            if not yes:
                _confirm(price.text)
            generation = await _begin(settings, registry, model, document, made, reason)
            obstacle = await wait_until_served(
                console.gateway_address(gateway, settings), await registry.load_mirrored()
            )
            if as_json:
                console.print_json({**to_document(made), "price": price.document, "generation": generation})
                return
            console.say(
                name, f"{percent:g} % of version {made.stable}'s requests go to version {candidate}, too"
            )
            console.say("until", made.until)
            console.say("price", price.text)
            if obstacle:
                console.say("not live", obstacle, style="bold yellow")
            console.say("look", f"chips shadow {name} --status")

    console.run_async(work())


def _confirm(price: str) -> None:
    console.note(price)
    if not sys.stdin.isatty():
        raise Failure("this costs what is said above, and must be confirmed", hint="add --yes", code=EX_USAGE)
    typer.confirm("Begin?", abort=True, err=True)


async def _plan(
    registry: Registry, settings: Settings, name: str, wanted: dict[str, Any], author: str
) -> tuple[Model, Document | None, Shadow]:
    """The model, the document that is replaced, and the shadow as it will be. Raises Failure for what cannot be honored."""
    _, model = await console.find_model(registry, name)
    stable = _stable_of(model, wanted["candidate"])
    versions = {}
    pure_by: PureBy = "policy" if model.policy.pure else "artifacts"
    for version in (wanted["candidate"], stable):
        backend = model.backend(version)
        if backend is None:
            raise Failure(
                f"{name} has no version {version}",
                hint=f"it has {', '.join(known.version for known in model.backends)}",
                code=EX_DATAERR,
            )
        _check_pure(settings, model, backend)
        versions[version] = backend_fingerprint(backend)
    made = Shadow(
        model=name, id=token_hex(6), stable=stable, versions=versions, pure_by=pure_by, by=author, **wanted
    )
    problems = shadow_problems(made)
    if problems:
        raise Failure("; ".join(problems), code=EX_DATAERR)
    document = await registry.read(SHADOWS, name)
    before = _readable(document)
    if before is not None and not why_not_shadowed(before, model, time.time()):
        raise Failure(
            f"version {before.candidate} is shadowed until {before.until}",
            hint=f"end that first: chips shadow {name} --stop",
            code=EX_DATAERR,
        )
    return model, document, made


def _readable(document: Document | None) -> Shadow | None:
    try:
        return None if document is None else read_shadow(document)
    except ValueError:
        return None  # no gateway runs it: another one may take its place


def _stable_of(model: Model, candidate: str) -> str:
    """The version whose answers count: the one with most of the traffic."""
    others = {v: share for v, share in model.traffic.items() if share and v != candidate}
    if not others:
        raise Failure(
            f"no other version of {model.name} takes traffic, so there is nothing to compare with",
            hint=f"chips traffic {model.name} shows the split",
            code=EX_DATAERR,
        )
    return max(others, key=lambda version: (others[version], version))


def _check_pure(settings: Settings, model: Model, backend: Backend) -> None:
    """Sent twice, a request must do no harm. Raises Failure."""
    if model.policy.pure:
        return
    if model.policy.pure is False:
        raise Failure(
            f"{model.name} is declared not pure: a shadow sends requests once more",
            hint=f"where predicting changes nothing: chips register {model.name} {backend.url} --pure",
            code=EX_DATAERR,
        )
    manifest = published_manifest(settings, backend.artifact, model.name, backend.version)
    if manifest is None or manifest.pure is not True:
        raise Failure(
            f"{model.name}@{backend.version} is not declared pure: a shadow sends requests once more",
            hint="where predicting changes nothing, publish with --pure (backend.toml: pure = true), or say it of all "
            f"versions: chips register {model.name} {backend.url} --pure",
            code=EX_DATAERR,
        )


async def _begin(
    settings: Settings,
    registry: Registry,
    model: Model,
    document: Document | None,
    made: Shadow,
    reason: str,
) -> int:
    """Write it. What the one before has found is evidence first: its figures make room."""
    expected = document.revision if document is not None else 0
    changes = [Put(kind=SHADOWS, name=made.model, body=to_document(made), expected=expected)]
    before = _readable(document)
    async with open_figures_store(settings, registry) as store:
        if before is not None and not await _is_kept(registry, before):
            facts = await read_shadow_status(store, before, model)
            if facts["compared"]:
                changes += await _verdict(registry, before, model, facts)
        generation = await registry.write(*changes, author=made.by, reason=reason)
        for old in await store.list_ephemeral(FIGURES):
            if old.name.rpartition(".")[0] == made.model and old.body.get("shadow") != made.id:
                await store.delete_ephemeral(FIGURES, old.name)
    return generation


async def _look(
    settings: Settings, name: str, *, stop: bool, by: str | None, reason: str, as_json: bool
) -> None:
    async with console.open_guarded_registry(settings) as registry:
        document = await registry.read(SHADOWS, name)
        if document is None:
            raise Failure(
                f"{name} has no shadow", hint=f"begin one: chips shadow {name} VERSION", code=EX_DATAERR
            )
        try:
            found = read_shadow(document)
        except ValueError as error:
            raise Failure(f"its document cannot be read: {error}", code=EX_DATAERR) from None
        _, model = await console.find_model(registry, name)
        ended = why_not_shadowed(found, model, time.time())
        author = console.author_name(by)
        if stop and not ended:
            found = msgspec.structs.replace(found, stopped=utc_text(time.time()))
            change = Put(kind=SHADOWS, name=name, body=to_document(found), expected=document.revision)
            await registry.write(change, author=author, reason=reason)
            await asyncio.sleep(_LAST_REPORT_S)  # what is under way still counts
        async with open_figures_store(settings, registry) as store:
            facts = await read_shadow_status(store, found, model)
        if stop and (kept := await _verdict(registry, found, model, facts)):
            await registry.write(*kept, author=author, reason=reason)
        elif ended and facts["compared"] and not await _is_kept(registry, found):
            console.note(f"chips shadow {name} --stop keeps what it found as evidence about the version")
    for report in facts["unreadable"]:
        console.note(f"a report is left out: {report}")
    if as_json:
        console.print_json(facts)
        return
    print_shadow_report(found, facts)


async def _verdict(registry: Registry, found: Shadow, model: Model, facts: dict[str, Any]) -> list[Put]:
    """The change that keeps the verdict as evidence about the candidate; none where that is another backend by now."""
    candidate = model.backend(found.candidate)
    if candidate is None or backend_fingerprint(candidate) != found.versions[found.candidate]:
        return []
    record = EvidenceRecord(
        model=found.model,
        version=found.candidate,
        sort=SHADOW,
        passed=facts["finding"] == "agrees",
        summary=f"{facts['finding']} with version {found.stable}: {facts['why']}",
        backend=backend_predict_url(candidate),
        artifact_digest=candidate.artifact_digest,
        image=await image_bound_to_evidence(registry, found.model, candidate),
        facts={
            "shadow": found.id,
            "tolerance": found.tolerance,
            "tolerances": found.tolerances,
            **{name: fact for name, fact in facts.items() if name not in _ABOUT_NOW},
        },
    )
    return [await evidence_change(registry, record)]


async def _is_kept(registry: Registry, found: Shadow) -> bool:
    """Whether its verdict is evidence already."""
    record = await read_evidence(registry, found.model, found.candidate, SHADOW)
    return record is not None and record.facts.get("shadow") == found.id


def _tolerances(given: list[str]) -> dict[str, float]:
    """By output; "" is for all others."""
    found = {}
    for text in given:
        output, _, value = text.rpartition("=")
        try:
            found[output] = float(value)
        except ValueError:
            raise Failure(
                f"{text!r} is no tolerance", hint="such as 1e-3 or price=0.01", code=EX_USAGE
            ) from None
    return found


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match is not None else 0
    if not 0 < seconds <= LONGEST_S:
        raise Failure(f"{text!r} is no time up to 30 days", hint="such as 30m, 24h or 7d", code=EX_USAGE)
    return float(seconds)
