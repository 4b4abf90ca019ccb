"""Prepare what `chips verify FOLDER` starts: a backend's command and environment, on a copy of its unpublished artifact.

Nothing is started here. The copy is temporary. `chips deploy` tries an artifact with the same command.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.artifacts.manifest import MANIFEST_NAME
from gateway.artifacts.prepare_artifact import prepare_artifact
from gateway.cli.deployment.refresh_copied_model import note_stale_model
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.deploy.backend_folder import BackendFolder, FolderError
from gateway.deploy.python_with_requirements import python_with_requirements
from gateway.deploy.target import DeployError, Tell
from gateway.deploy.try_unpublished_artifact import staged_artifact
from gateway.settings import environment_for_backend, state_folder
from gateway.verify.run import ArtifactManifestSubset, parse_manifest_or_samples


class StagedBackend(NamedTuple):
    """What starts a staged backend. It has the command, environment and folder, and the manifest of its artifact."""

    command: str
    environ: dict[str, str]
    folder: Path
    manifest: ArtifactManifestSubset


def prepare_backend_command(source: BackendFolder, tell: Tell) -> list[str]:
    """Prepare a backend to run here, and return its command.

    Requirements are installed for a Python backend alone; others must have their packages already. Raises DeployError.
    """
    python = ""
    if source.runs_in_python:
        python = python_with_requirements(source.path, state_folder() / "environments", tell)
    return source.command(python)


@contextmanager
def stage_backend(path: Path) -> Iterator[StagedBackend]:
    """Stage a folder's backend so that it can start.

    It is staged on a temporary copy of its artifact; yields what starts it. Raises Failure.
    """
    note_stale_model(path)
    try:
        source = BackendFolder(path)
        settings = source.settings
        prepared = prepare_artifact(
            source.artifact,
            model=source.model,
            version=source.version,
            created_by="",
            format=settings.format,
            signature=source.signature_or_samples_file("signature"),
            samples=source.signature_or_samples_file("samples"),
            rows=settings.rows,
            pure=settings.pure,
        )
        words = prepare_backend_command(source, console.note)
    except (FolderError, ValueError) as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    except DeployError as error:
        raise Failure(str(error), hint=error.hint, code=error.code) from None
    for warning in prepared.warnings:
        console.note(f"warning: {warning}")
    with staged_artifact(prepared.manifest, prepared.files) as artifact:
        environ = {
            **environment_for_backend(),
            **source.environment(),
            "CHIPS_MODEL": source.model,
            "CHIPS_VERSION": source.version,
            "CHIPS_ARTIFACT": str(artifact),
            "CHIPS_CACHE_DIR": str(artifact.parent / "cache"),
            "CHIPS_CONCURRENCY": str(settings.concurrency),
        }
        manifest = parse_manifest_or_samples(prepared.manifest.encode(), MANIFEST_NAME)
        yield StagedBackend(shlex.join(words), environ, path.absolute(), manifest)
