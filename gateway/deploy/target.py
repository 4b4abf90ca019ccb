"""The interface of a deployment target. A target is a place to deploy to: this machine, or Cloud Run."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.deploy.backend_folder import BackendFolder

Tell = Callable[[str], None]  # one line of progress
StepSummary = str  # what a step that succeeded found or did, in words for people


class DeployError(Exception):
    """A step of a deployment failed. The text says what and why, `hint` what to do."""

    def __init__(self, message: str, *, hint: str = "", code: int = 69) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class DeployedBackend(NamedTuple):
    """A backend that was deployed: its URL, and a detail to show."""

    url: str
    detail: str  # a revision's name, or a process's number
    is_new: bool = True  # False: it ran already, with the same code and artifact


class DeploymentTarget(Protocol):
    """A place to deploy to. Each method can be called again after an interruption, and does only what is not done yet. Raises DeployError."""

    name: str

    def require_deployable(self, folder: BackendFolder) -> StepSummary:
        """Raise DeployError unless the folder can be deployed here; return where to. Called before anything is made."""

    def build_image(self, folder: BackendFolder, tell: Tell) -> str:
        """Build the backend's image, and return its address.

        The address has the digest. It is empty where no image is needed.
        """

    def start_without_traffic(
        self, folder: BackendFolder, image: str, artifact: str, tell: Tell
    ) -> DeployedBackend:
        """Start the version without traffic, and wait until it is ready. Versions that run go on next to it."""

    def remove_replaced_deployments(self, folder: BackendFolder, deployed: DeployedBackend) -> None:  # noqa: ARG002
        """Remove the deployments of the same version that `deployed` replaces. Other versions run on.

        Called after `deployed` is registered. A target where keeping that costs nothing inherits this, which does nothing.
        """
        return

    def credentials(self, url: str) -> dict[str, str]:
        """Header fields that authenticate to the backend at `url`."""

    def stop(self, model: str, version: str) -> bool:
        """Stop a version; False where it did not run."""
