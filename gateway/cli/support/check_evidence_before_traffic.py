"""Check by its evidence in the registry that a version is verified before it gets traffic.

This runs no verification. It also warns where a rollout is active, which a change by hand holds.
"""

from typing import Annotated

import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.model import Backend, Model
from gateway.core.rollout_document import backend_fingerprint
from gateway.core.version_evidence import VERIFY, why_evidence_does_not_apply
from gateway.registry.base import ROLLOUTS, Registry
from gateway.registry.evidence_records import read_evidence
from gateway.registry.snapshot import read_rollout

ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Also a version that is not verified; the history says so."),
]


def newly_served_versions(before: Model | None, after: Model) -> list[str]:
    """The versions that newly take traffic in `after`.

    The backend took none in `before`. These are versions that had no share, and versions with a share whose backend was
    replaced by another one.
    """
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


async def why_unverified(registry: Registry, model: str, backend: Backend) -> str:
    """Why the version counts as unverified. Then it may not get traffic; empty where it may. Raises RegistryError."""
    record = await read_evidence(registry, model, backend.version, VERIFY)
    if record is None:
        return "it was never verified"
    elsewhere = why_evidence_does_not_apply(record, backend)
    if elsewhere:
        return f"its verification does not count: {elsewhere}"
    return "" if record.passed else f"it failed its verification: {record.summary}"


async def check_verified(registry: Registry, model: Model, versions: list[str], *, force: bool) -> str:
    """Check by their evidence that `versions` are verified.

    Raises Failure where one is not. With `force`, return instead which are not and why, to add to the history's reason.
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
    """Warn if a rollout of the model is active. A change by hand will hold it."""
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
