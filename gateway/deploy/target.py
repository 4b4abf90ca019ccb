"""Where a backend is deployed: a process on this machine, or Cloud Run. One Protocol, so that both use the same steps."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.deploy.folder import BackendFolder

Tell = Callable[[str], None]  # one line of progress


class DeployError(Exception):
    """A step failed. The text says what and why, `hint` what to do."""

    def __init__(self, message: str, *, hint: str = "", code: int = 69) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class DeployedBackend(NamedTuple):
    """A backend that runs."""

    url: str
    detail: str  # a revision's name, or a process's number
    is_new: bool = True  # False: it ran already, with the same code and artifact


class DeploymentTarget(Protocol):
    """Each method can be called again after an interruption, and does only what is not done yet. Raises DeployError."""

    name: str

    def check(self, folder: BackendFolder) -> str:
        """Whether it can be deployed here at all, before anything is made; returns what was found."""

    def build(self, folder: BackendFolder, tell: Tell) -> str:
        """Make the image; return its address with digest, or nothing where none is needed."""

    def start(self, folder: BackendFolder, image: str, artifact: str, tell: Tell) -> DeployedBackend:
        """Start the version next to those that run, without traffic, and wait until it is ready."""

    def stop_replaced(self, folder: BackendFolder, deployed: DeployedBackend) -> None:
        """After registration: stop the older deployment of this version that `deployed` has replaced."""

    def credentials(self, url: str) -> dict[str, str]:
        """Header fields with which the backend at `url` lets us in."""

    def stop(self, model: str, version: str) -> bool:
        """End a version; False where it did not run."""
