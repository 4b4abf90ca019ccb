"""`chips deploy --watch`: deploy again whenever a file of the folder changes."""

import shutil
import time
from pathlib import Path
from typing import Final

import msgspec

from gateway.cli.deployment.deployment_run import (
    DeploymentRun,
    StepReporter,
    check_same_owner,
    run_deployment,
)
from gateway.cli.deployment.refresh_copied_model import bring_model_up_to_date, source_path
from gateway.cli.models.deregister_disable_enable import deregister_version
from gateway.cli.support import console
from gateway.cli.support.console import Failure
from gateway.deploy.backend_folder import BackendFolder, FolderError
from gateway.deploy.local_process_target import LocalProcessTarget
from gateway.settings import Settings, process_environment, state_folder

_POLL_S: Final = 0.3
_SUFFIX: Final = "-dev"


def watch_folder(source: BackendFolder, settings: Settings, author: str, owner: str | None) -> None:
    """Watch a folder, and deploy again at each change. It ends at Ctrl-C.

    The version is a temporary one with a store of its own, where it may change; it is removed at the end.
    """
    version = source.version + _SUFFIX
    scratch = state_folder() / "scratch"
    settings = msgspec.structs.replace(settings, artifacts=str(scratch))
    target = LocalProcessTarget(state_folder() / "local", process_environment())
    path, model = source.path, source.model
    console.confirm_protected_write(settings)
    try:
        while True:
            copied_from = source_path(path)
            seen_source = _fingerprint(copied_from)
            is_current = _refresh(path)
            seen = _fingerprint(path)
            if is_current:
                _deploy_once(path, version, settings, target, author, owner)
            console.say("watching", f"{path}; Ctrl-C ends it and takes {model}@{version} away")
            while _fingerprint(path) == seen and _fingerprint(copied_from) == seen_source:
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        _take_away(settings, target, model, version, author)


def _deploy_once(
    path: Path, version: str, settings: Settings, target: LocalProcessTarget, author: str, owner: str | None
) -> None:
    try:
        source = BackendFolder(path, version=version)
        shutil.rmtree(Path(settings.artifacts) / source.model / version, ignore_errors=True)
        owner = owner or source.settings.owner or None
        run = DeploymentRun(
            source, target, settings, author, owner, reason="chips deploy --watch", trying=False
        )
        console.run_async(check_same_owner(run))
        report = StepReporter(json_at_end=False)
        report.summarize(run, run_deployment(run, report))
    except FolderError as error:
        console.err.print(f"error: {error}", style="red")
    except Failure as failure:
        _report(failure)


def _refresh(path: Path) -> bool:
    """Take the model from its source where that has changed; False where it cannot be taken."""
    try:
        with bring_model_up_to_date(path, refresh=None, dry_run=False):
            return True
    except Failure as failure:
        _report(failure)
        return False


def _report(failure: Failure) -> None:
    console.err.print(f"error: {failure.message}", style="red")
    console.err.print("what ran before runs on; save a change to try again", style="dim")


def _fingerprint(path: Path | None) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of a file, or of each file below a folder; what Python caches, and hidden files, do not count."""
    found = []
    for file in () if path is None else (path, *path.rglob("*")):
        parts = file.relative_to(path).parts if path is not None else ()
        if "__pycache__" in parts or any(part.startswith(".") for part in parts):
            continue
        try:
            status = file.stat()
        except OSError:  # removed at this moment
            continue
        if file.is_file():
            found.append((str(file), status.st_mtime_ns, status.st_size))
    return tuple(sorted(found))


def _take_away(settings: Settings, target: LocalProcessTarget, model: str, version: str, author: str) -> None:
    console.run_async(
        deregister_version(
            settings, model, version, despite_traffic=True, author=author, reason="chips deploy --watch ended"
        )
    )
    target.stop(model, version)
    console.say("ended", f"{model}@{version} is taken away")
