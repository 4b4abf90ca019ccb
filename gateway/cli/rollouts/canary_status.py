"""What `chips canary --status` shows: the rollout, its steps, and the evidence up to now."""

from typing import Any

import msgspec

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.model import Model, parse_model
from gateway.core.rollout import Rollout
from gateway.registry.base import MODELS, ROLLOUTS, Registry
from gateway.registry.snapshot import read_rollout
from gateway.rollout.assessment import ASSESSMENTS, Assessment
from gateway.rollout.decision import decide
from gateway.rollout.lease import LEASE, LEASES

_STYLES = {"running": "bold", "succeeded": "bold green", "returned": "bold red", "held": "bold yellow"}
_NAMES = {"errors": "errors", "refusals": "refused (4xx)", "p95": "above its p95", "p99": "above its p99"}


async def read_status(registry: Registry, name: str) -> dict[str, Any]:
    """The rollout of `name` as facts: JSON values. Raises Failure."""
    document = await registry.read(ROLLOUTS, name)
    if document is None:
        await console.find_model(registry, name)
        raise Failure(f"there is no rollout of {name}", hint=f"chips canary {name} VERSION", code=EX_DATAERR)
    try:
        rollout = read_rollout(document)
    except ValueError as error:
        raise Failure(f"the rollout of {name} cannot be read: {error}", code=EX_DATAERR) from None
    seen = await _assessment(registry, rollout)
    leases = {one.name: one.body.get("holder") for one in await registry.list_ephemeral(LEASES)}
    return {
        "model": name,
        "candidate": rollout.candidate,
        "stable": rollout.stable,
        "state": rollout.state,
        "percent": rollout.percent,
        "step": rollout.position + 1,
        "reason": rollout.reason,
        "waits_for": _waits_for(rollout, await _model(registry, name), seen),
        "controller": bool(leases.get(LEASE)),
        "by": rollout.by,
        "plan": msgspec.to_builtins(rollout.plan) | {"steps": list(rollout.plan.steps)},
        "evidence": seen.evidence(),
        "requests_at_this_step": seen.requests,
        "steps": msgspec.to_builtins(rollout.steps),
    }


async def _model(registry: Registry, name: str) -> Model | None:
    document = await registry.read(MODELS, name)
    try:
        return None if document is None else parse_model(document.body)
    except ValueError:
        return None


async def _assessment(registry: Registry, rollout: Rollout) -> Assessment:
    for document in await registry.list_ephemeral(ASSESSMENTS):
        if document.name == rollout.model:
            try:
                seen = msgspec.convert(document.body, Assessment, str_keys=True)
            except msgspec.ValidationError:
                break
            if seen.rollout == rollout.id:
                seen.enter(rollout.position)
                return seen
    return Assessment.begin(rollout)


def _waits_for(rollout: Rollout, model: Model | None, seen: Assessment) -> str:
    if not rollout.active:
        return ""
    decision = decide(rollout, model, seen, silent=0)
    return decision.reason if decision.action == "wait" else f"the controller: {decision.reason}"


def print_status(facts: dict[str, Any]) -> None:
    """`read_status` for people."""
    state = facts["state"]
    steps = facts["plan"]["steps"]
    console.say(
        facts["model"],
        f"version {facts['candidate']} takes {facts['percent']} %, step {facts['step']} of {len(steps)} "
        f"({', '.join(f'{step} %' for step in steps)}); stable is version {facts['stable']}",
    )
    console.say(state, facts["reason"], style=_STYLES.get(state, "bold"))
    if facts["waits_for"]:
        console.say("now", facts["waits_for"])
    for name, label in _NAMES.items():
        found = facts["evidence"].get(name)
        if found and found["candidate"][0]:
            console.say(
                label if len(label) < 10 else f"{label} ",
                f"{found['finding']}: {_share(found['candidate'])} against {_share(found['stable'])}",
            )
    for step in facts["steps"]:
        console.say(f"{step['percent']} %", f"{step['state']}: {step['reason']}", style="dim")
    if state == "running" and not facts["controller"]:
        console.note("no controller has been seen yet: `chips serve` runs one, and `chips rollouts run`")


def _share(counted: list[int]) -> str:
    requests, hits = counted
    return f"{hits} of {requests} ({hits / requests:.2%})" if requests else "0 of 0"
