"""Check before a version gets traffic that it is verified, or forced (which the history then says), and that no rollout is active."""

from typing import Annotated

import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.model import Model
from gateway.core.rollout_document import backend_fingerprint
from gateway.registry.base import ROLLOUTS, Registry
from gateway.registry.evidence_records import why_unverified
from gateway.registry.snapshot import read_rollout

ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Also a version that is not verified; the history says so."),
]


def newly_served(before: Model | None, after: Model) -> list[str]:
    """The versions whose backends had no requests, and get some: a share, or the share of what they replace."""
    served = {}
    if before is not None:
        served = {
            one.version: backend_fingerprint(one)
            for one in before.backends
            if before.traffic.get(one.version)
        }
    return [
        one.version
        for one in after.backends
        if after.traffic.get(one.version) and served.get(one.version) != backend_fingerprint(one)
    ]


async def check_verified(registry: Registry, model: Model, versions: list[str], *, force: bool) -> str:
    """Check by their evidence that `versions` are verified; return what to add to the reason.

    Raises Failure where one is not, unless `force`.
    """
    found = []
    for version in versions:
        backend = model.backend(version)
        why = await why_unverified(registry, model.name, backend) if backend is not None else ""
        if not why or backend is None:
            continue
        if not force:
            raise Failure(
                f"version {version} of {model.name} may not get traffic: {why}",
                hint=f"chips register {model.name} {backend.url} --version {version} "
                "verifies it; --force gives it traffic all the same, and the history says so",
                code=EX_DATAERR,
            )
        found.append(f"forced: version {version}: {why}")
    return "; ".join(found)


async def warn_of_active_rollout(registry: Registry, name: str) -> None:
    """Warn that a rollout is active: a change by hand will hold it."""
    document = await registry.read(ROLLOUTS, name)
    if document is None:
        return
    try:
        rollout = read_rollout(document)
    except ValueError:
        return
    if rollout.active:
        console.note(
            f"a rollout of version {rollout.candidate} is {rollout.state}, and a change by hand holds it: "
            f"chips canary {name} --status"
        )
