"""`chips plan`: estimate the monthly cost of a model. It shows the cost on Cloud Run, part by part."""

import math
import re
from functools import partial
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.parse_sizes import GIB, given_resources, parse_bytes
from gateway.cli.support.read_published_artifact import published_manifest
from gateway.core.model import Model, Resources, resource_problems
from gateway.core.model_updates import to_document
from gateway.core.prices import Prices
from gateway.cost.compare_plan_with_actual import SavedPlan
from gateway.cost.estimate import (
    UTILIZATION,
    CostEstimate,
    InstanceSettings,
    TrafficLoad,
    estimate_cost,
    memory_needed_gib,
)
from gateway.cost.registry_price_tables import prices_now, read_all_price_tables
from gateway.registry.base import MODELS, PLANS, Put, Registry

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s)")
_UNKNOWN_BYTES = 100 * 1024.0**2  # of an artifact, where nothing is known of it


def plan(
    name: Annotated[
        str, typer.Argument(help="The model; its declared concurrency is used where it is registered.")
    ],
    rps: Annotated[
        float, typer.Option("--rps", min=0, max=1e9, help="Requests a second, on average over the month.")
    ],
    latency: Annotated[str, typer.Option("--latency", help="How long the backend takes: 40ms, 1.5s.")],
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Predictions at once in one instance; otherwise as registered, else 1."
        ),
    ] = None,
    cpu: Annotated[
        float | None,
        typer.Option(min=0.08, max=8, help="Processors of one instance; otherwise as registered, else 1."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory of one instance: 512Mi, 2Gi; otherwise as registered, else 1Gi."),
    ] = None,
    min_instances: Annotated[
        int | None,
        typer.Option(min=0, help="Instances that are kept warm; otherwise as registered, else none."),
    ] = None,
    busy: Annotated[
        float,
        typer.Option(min=0.01, max=100, help="Percent of the month in which calls come; the rest is silent."),
    ] = 100.0,
    response: Annotated[str, typer.Option(help="Size of an answer: 1Ki, 2Mi.")] = "1Ki",
    artifact: Annotated[
        str | None, typer.Option(help="Size of the artifact: 100Mi, 2Gi. [default: as published, else 100Mi]")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the plan; `chips cost` shows what comes next to it.")
    ] = False,
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Estimate a model's monthly cost.

    It is the cost on Cloud Run, part by part. docs/explanation/autoscaling.md has the formula.

    Examples:

    `chips plan wine --rps 5 --latency 40ms`

    `chips plan wine --rps 0.2 --latency 900ms --min-instances 1 --memory 4Gi --cpu 2 --save`
    """
    load = TrafficLoad(
        rps=rps, latency_s=_seconds(latency), response_bytes=parse_bytes(response), busy_share=busy / 100
    )
    registered = console.with_registry(registry_url, lambda registry: _registered(registry, name))
    declared = concurrency or _declared(registered) or 1
    sizes = [parse_bytes(artifact)] if artifact is not None else _published_sizes(registry_url, registered)
    largest_gib = max(sizes, default=_UNKNOWN_BYTES) / GIB
    resources = msgspec.structs.replace(
        _resources(registered), **(given_resources(cpu, memory, min_instances) or {})
    )
    problems = resource_problems(resources)
    if problems:
        raise Failure("; ".join(problems), hint="--cpu, --memory and --min-instances say it", code=EX_DATAERR)
    warnings = _warnings(resources.memory_gib, largest_gib) if sizes else []
    deployment = InstanceSettings(
        concurrency=declared,
        cpu=resources.cpu,
        memory_gib=resources.memory_gib,
        min_instances=resources.min_instances,
        artifact_gib=(sum(sizes) or _UNKNOWN_BYTES) / GIB,
    )
    tables, _ = console.with_registry(registry_url, read_all_price_tables)
    prices = prices_now(tables)
    author = console.author_name(by)
    try:
        found = estimate_cost(load, deployment, prices)
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    if save:
        kept = partial(_save, name, load, deployment, author)
        console.with_registry(registry_url, kept)
    if as_json:
        console.print_json(_document(name, deployment, found, prices, warnings))
        return
    _show(name, declared, found, prices, warnings)


def _document(
    name: str, deployment: InstanceSettings, found: CostEstimate, prices: Prices, warnings: list[str]
) -> dict[str, Any]:
    return {
        "model": name,
        "currency": prices.currency,
        "prices_of": prices.date,
        "region": prices.region,
        "instances": found.instances,
        "concurrency": deployment.concurrency,
        "cpu": deployment.cpu,
        "memory_gib": deployment.memory_gib,
        "min_instances": deployment.min_instances,
        "artifact_gib": round(deployment.artifact_gib, 4),
        "warnings": warnings,
        "total": round(found.total, 4),
        "parts": {part.name: round(part.amount, 4) for part in found.parts},
    }


async def _save(
    name: str, load: TrafficLoad, deployment: InstanceSettings, author: str, registry: Registry
) -> None:
    await console.find_model_document(registry, name)  # what nobody calls has no cost to compare
    plan = SavedPlan(
        model=name,
        rps=load.rps,
        latency_s=load.latency_s,
        response_bytes=load.response_bytes,
        busy_share=load.busy_share,
        concurrency=deployment.concurrency,
        cpu=deployment.cpu,
        memory_gib=deployment.memory_gib,
        min_instances=deployment.min_instances,
    )
    known = await registry.read(PLANS, name)
    change = Put(
        kind=PLANS, name=name, body=to_document(plan), expected=known.revision if known is not None else 0
    )
    await registry.write(change, author=author, reason="chips plan --save")


def _show(name: str, declared: int, found: CostEstimate, prices: Prices, warnings: list[str]) -> None:
    console.say(
        name,
        f"{found.instances:.1f} instances of {declared} at once, {UTILIZATION:.0%} full, while calls come",
    )
    for part in found.parts:
        console.say(part.name, f"{part.amount:10.2f} {prices.currency}  {part.why}")
    for warning in warnings:
        console.say("warning", warning, style="bold yellow")
    console.say("total", f"{found.total:10.2f} {prices.currency} a month, without free tiers and discounts")
    console.note(f"list prices of {prices.date} for {prices.region}: `chips prices` has their sources")


async def _registered(registry: Registry, name: str) -> Model | None:
    document = await registry.read(MODELS, name)
    return None if document is None else console.read_model(document)


def _declared(model: Model | None) -> int | None:
    """The least that one of the versions with traffic runs at once."""
    backends = () if model is None else model.backends
    taken = [backend.concurrency for backend in backends if model and model.traffic.get(backend.version)]
    return min((value for value in taken if value is not None), default=None)


def _resources(model: Model | None) -> Resources:
    """The largest declared size of a version with traffic, or the default."""
    backends = () if model is None else model.backends
    found = [b.resources for b in backends if b.resources and model and model.traffic.get(b.version)]
    return max(found, key=lambda size: (size.memory_gib, size.cpu, size.min_instances), default=Resources())


def _published_sizes(registry_url: str | None, model: Model | None) -> list[float]:
    """Bytes of the artifact of each registered version, as far as they can be read from here."""
    if model is None:
        return []
    settings = console.settings_for(registry_url)
    found = (published_manifest(settings, b.artifact, model.name, b.version) for b in model.backends)
    return [float(manifest.total_bytes) for manifest in found if manifest is not None]


def _warnings(memory_gib: float, artifact_gib: float) -> list[str]:
    needed = memory_needed_gib(artifact_gib)
    if memory_gib >= needed:
        return []
    text = (
        f"{memory_gib:g} GiB is too little for an artifact of {artifact_gib:.2f} GiB: on Cloud Run it lies in memory next to the model "
        f"that is loaded from it; plan with --memory {math.ceil(needed)}Gi, and say so in backend.toml"
    )
    return [text]


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Failure(f"{text!r} is not a duration", hint="such as 40ms or 1.5s", code=EX_USAGE)
    return float(match[1]) / (1000 if match[2] == "ms" else 1)
