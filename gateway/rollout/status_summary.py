"""The status of a rollout as `chips canary --status` and the console show it."""

from typing import Any

import msgspec

from gateway.core.model import Model
from gateway.core.rollout_document import Rollout, RolloutPlan, mask_webhook
from gateway.registry.base import Registry
from gateway.rollout.assessment import ASSESSMENTS, Assessment
from gateway.rollout.decision import decide
from gateway.rollout.lease import LEASE, LEASES


async def read_rollout_status(registry: Registry, rollout: Rollout, model: Model | None) -> dict[str, Any]:
    """Read the status of a rollout.

    Returns JSON values: its document, what it waits for, the evidence up to now. Raises RegistryError.
    """
    seen = await _assessment(registry, rollout)
    leases = {one.name: one.body.get("holder") for one in await registry.list_ephemeral(LEASES)}
    return {
        "model": rollout.model,
        "candidate": rollout.candidate,
        "stable": rollout.stable,
        "state": rollout.state,
        "percent": rollout.percent,
        "step": rollout.position + 1,
        "reason": rollout.reason,
        "waits_for": _waits_for(rollout, model, seen),
        "controller": bool(leases.get(LEASE)),
        "by": rollout.by,
        "sticky": model.sticky.by if model is not None and model.sticky is not None else None,
        "plan": _plan(rollout.plan),
        "evidence": seen.evidence(),
        "requests_at_this_step": seen.requests,
        "gateways": {"reporting": seen.reporting, "silent": seen.silent, "left_out": seen.left_out},
        "steps": msgspec.to_builtins(rollout.steps),
    }


def _plan(plan: RolloutPlan) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(plan) | {"steps": list(plan.steps)}
    if plan.webhook:
        shown["webhook"] = mask_webhook(plan.webhook)
    return shown


async def _assessment(registry: Registry, rollout: Rollout) -> Assessment:
    for document in await registry.list_ephemeral(ASSESSMENTS):
        if document.name == rollout.model:
            try:
                seen = msgspec.convert(document.body, Assessment, str_keys=True)
            except msgspec.ValidationError:
                break
            if seen.rollout == rollout.id:
                seen.enter_step(rollout.position)
                return seen
    return Assessment.begin(rollout)


def _waits_for(rollout: Rollout, model: Model | None, seen: Assessment) -> str:
    if not rollout.active:
        return ""
    decision = decide(rollout, model, seen)
    return decision.reason if decision.action == "wait" else f"the controller: {decision.reason}"
