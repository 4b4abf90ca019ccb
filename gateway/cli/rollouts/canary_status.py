"""Read and print the status of a canary. It is the rollout, its steps, and the evidence up to now (`chips canary --status`)."""

from typing import Any

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.model import Model, parse_model
from gateway.registry.base import MODELS, ROLLOUTS, Registry
from gateway.registry.snapshot import read_rollout
from gateway.rollout.status_summary import read_rollout_status

_STYLES = {"running": "bold", "succeeded": "bold green", "returned": "bold red", "held": "bold yellow"}
_NAMES = {"errors": "errors", "refusals": "refused (4xx)", "p95": "above its p95", "p99": "above its p99"}


async def read_status(registry: Registry, name: str) -> dict[str, Any]:
    """Read the status of the rollout of the model `name`, as JSON values. Raises Failure."""
    document = await registry.read(ROLLOUTS, name)
    if document is None:
        await console.find_model(registry, name)
        raise Failure(f"there is no rollout of {name}", hint=f"chips canary {name} VERSION", code=EX_DATAERR)
    try:
        rollout = read_rollout(document)
    except ValueError as error:
        raise Failure(f"the rollout of {name} cannot be read: {error}", code=EX_DATAERR) from None
    return await read_rollout_status(registry, rollout, await _model(registry, name))


async def _model(registry: Registry, name: str) -> Model | None:
    document = await registry.read(MODELS, name)
    try:
        return None if document is None else parse_model(document.body)
    except ValueError:
        return None


def print_status(facts: dict[str, Any]) -> None:
    """Print the status that `read_status` returned, for people."""
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
    if facts["sticky"]:
        console.say("sticky", facts["sticky"])
    gateways = facts["gateways"]
    if any(gateways.values()):
        console.say("gateways", _gateways(gateways))
    for step in facts["steps"]:
        console.say(f"{step['percent']} %", f"{step['state']}: {step['reason']}", style="dim")
    if state == "running" and not facts["controller"]:
        console.note("no controller has been seen yet: `chips serve` runs one, and `chips rollouts run`")


def _gateways(counted: dict[str, int]) -> str:
    """How many are known: one that never reports is in none of these."""
    said = [f"{counted['reporting']} processes report"]
    if counted["silent"]:
        said.append(f"{counted['silent']} are late")
    if counted["left_out"]:
        said.append(f"{counted['left_out']} were waited for in vain and left out")
    return "; ".join(said)


def _share(counted: list[int]) -> str:
    requests, hits = counted
    return f"{hits} of {requests} ({hits / requests:.2%})" if requests else "0 of 0"
