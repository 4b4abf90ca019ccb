"""The steps of a deployment, in order.

They are check, try, publish, build, start, verify and register.

Each step finds out by itself what is done already, so the same command, given again after Ctrl-C or a failure, goes on
where it stopped. What a later step fails on leaves nothing behind that takes traffic.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.deploy.backend_folder import BackendFolder
from gateway.deploy.target import DeployedBackend, DeploymentTarget, StepSummary, Tell

STEPS: Sequence[tuple[str, str]] = (
    ("check", "can it be deployed there at all, and is the artifact what it should be?"),
    ("try", "load it and score its samples in a process of its own, before a version is spent"),
    ("publish", "store the artifact with its manifest; a version never changes"),
    ("build", "make the image, unless these very sources were built before"),
    ("start", "start it next to the versions that run, without traffic, and wait until it is ready"),
    ("verify", "hold it against the backend contract"),
    ("register", "put it into the registry"),
)


class StepProgress(Protocol):
    """Receives the progress of a deployment's steps. It is told the begin, the messages and the end of each step."""

    def begin(self, step: str) -> None: ...

    def tell(self, text: str) -> None: ...

    def end(self, step: str, outcome: StepSummary) -> None: ...


def deploy(
    folder: BackendFolder,
    target: DeploymentTarget,
    progress: StepProgress,
    *,
    check: Callable[[BackendFolder, Tell], StepSummary],
    try_: Callable[[BackendFolder, Tell], StepSummary],
    publish: Callable[[BackendFolder, Tell], str],
    verify: Callable[[BackendFolder, DeployedBackend, Tell], StepSummary],
    register: Callable[[BackendFolder, DeployedBackend, Tell], StepSummary],
) -> DeployedBackend:
    """Deploy the folder to `target`: take every step in order.

    Where a step raises, the steps before it are not undone, those after it have not begun, and the error goes to the caller.
    The steps for the artifact, the contract and the registry are given as functions.
    """
    artifact, image = "", ""

    def take(step: str, work: Callable[[], str]) -> str:
        progress.begin(step)
        outcome = work()
        progress.end(step, outcome)
        return outcome

    take(
        "check",
        lambda: "\n".join(filter(None, (target.require_deployable(folder), check(folder, progress.tell)))),
    )
    take("try", lambda: try_(folder, progress.tell))
    artifact = take("publish", lambda: publish(folder, progress.tell))
    image = take("build", lambda: target.build_image(folder, progress.tell))
    progress.begin("start")
    deployed = target.start_without_traffic(folder, image, artifact, progress.tell)
    progress.end("start", f"{deployed.url} ({deployed.detail})")
    take("verify", lambda: verify(folder, deployed, progress.tell))
    take("register", lambda: register(folder, deployed, progress.tell))
    target.remove_replaced_deployments(folder, deployed)
    return deployed
