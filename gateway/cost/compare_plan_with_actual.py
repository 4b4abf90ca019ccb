"""Compare a saved plan with the actual cost.

`chips plan --save` saves plans. The difference is explained step by step. The steps add up to the difference. Each step
replaces one assumption of the plan by what was measured, in a fixed order, and asks the same formula again. The last step is
what the formula does not know: how calls were spread over time and instances, and prices that changed.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from gateway.core.budget import MICRO
from gateway.core.prices import Prices
from gateway.cost.estimate import MONTH_S, InstanceSettings, TrafficLoad, estimate_cost
from gateway.cost.ledger import LedgerEntry
from gateway.registry.base import Document

_COMPARED: Final = frozenset({"computing", "kept warm", "requests", "egress"})  # what the ledger has, too

_LARGEST: Final = 1e12

Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
NotNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]


class SavedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A saved plan: the traffic and instances that were expected of a model."""

    model: str
    rps: NotNegative
    latency_s: Positive
    response_bytes: NotNegative
    busy_share: Annotated[float, Meta(gt=0, le=1)]
    concurrency: Annotated[int, Meta(ge=1, le=2**53)]
    cpu: Positive
    memory_gib: Positive
    min_instances: Annotated[int, Meta(ge=0, le=2**53)]


class ComparisonStep(NamedTuple):
    """One step from the planned to the actual cost. It has a reason, and what it adds or takes away, in millionths."""

    why: str
    micros: int


class PlanComparison(NamedTuple):
    """A saved plan compared with the actual cost.

    It is for the part of the month that is over, and the steps say why the two differ.
    """

    model: str
    planned: int
    actual: int
    steps: list[ComparisonStep]


def read_plan(document: Document) -> SavedPlan:
    """Read the plan in a registry document. ValueError says what is wrong with it."""
    if document.problem:
        raise ValueError(document.problem)
    try:
        plan = msgspec.convert(document.body, SavedPlan)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if plan.model != document.name:
        raise ValueError(f'it says that it is of "{plan.model}"')
    return plan


def compare_plan(
    plan: SavedPlan, entries: Iterable[LedgerEntry], prices: Prices, elapsed_s: float
) -> PlanComparison:
    """Compare `plan` with the ledger's entries of its model.

    They cover `elapsed_s` seconds, which must be more than nothing.
    """
    ours = [entry for entry in entries if entry.model == plan.model]
    requests = sum(entry.usage.requests for entry in ours)
    busy_s = sum(entry.backend_s for entry in ours)
    sent = sum(entry.usage.bytes_out for entry in ours)
    largest = max(ours, key=lambda entry: entry.backend_s, default=None)
    load = TrafficLoad(
        plan.rps, plan.latency_s, response_bytes=plan.response_bytes, busy_share=plan.busy_share
    )
    size = InstanceSettings(plan.concurrency, plan.cpu, plan.memory_gib, plan.min_instances, artifact_gib=0.0)

    stages: list[tuple[str, TrafficLoad, InstanceSettings]] = [("", load, size)]
    rps = requests / elapsed_s
    load = load._replace(rps=rps)
    stages.append((f"{rps:.3g} requests a second came, {plan.rps:.3g} were planned", load, size))
    if requests and busy_s:
        latency_s = busy_s / requests
        load = load._replace(latency_s=latency_s)
        why = f"the backend took {latency_s * 1000:.3g} ms, {plan.latency_s * 1000:.3g} ms were planned"
        stages.append((why, load, size))
        load = load._replace(response_bytes=sent / requests)
        why = f"answers have {sent / requests:.3g} bytes, {plan.response_bytes:.3g} were planned"
        stages.append((why, load, size))
    if largest is not None:
        declared = largest.size
        size = size._replace(
            concurrency=declared.concurrency, cpu=declared.cpu, memory_gib=declared.memory_gib
        )
        stages.append(("the declared size and concurrency of instances", load, size))

    amounts = [_estimate(load, size, prices, elapsed_s) for _, load, size in stages]
    actual = sum(entry.cost.total for entry in ours)
    steps = [
        ComparisonStep(why, after - before)
        for (why, _, _), before, after in zip(stages[1:], amounts, amounts[1:], strict=False)
    ]
    steps.append(
        ComparisonStep(
            "how calls were spread over time and instances, and prices that changed", actual - amounts[-1]
        )
    )
    return PlanComparison(plan.model, amounts[0], actual, steps)


def _estimate(load: TrafficLoad, size: InstanceSettings, prices: Prices, elapsed_s: float) -> int:
    month = estimate_cost(load, size, prices)
    amount = sum(part.amount for part in month.parts if part.name in _COMPARED)
    return round(amount * MICRO * elapsed_s / MONTH_S)


def comparison_document(comparison: PlanComparison) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {
        "model": comparison.model,
        "planned_micros": comparison.planned,
        "actual_micros": comparison.actual,
        "difference": [{"why": step.why, "micros": step.micros} for step in comparison.steps],
    }
