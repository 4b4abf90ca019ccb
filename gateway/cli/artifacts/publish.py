"""`chips publish`: publish a trained model to the artifact store.

It is stored with its manifest, as a version that never changes.
"""

import shlex
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from gateway.artifacts.artifact_store_interface import (
    ArtifactStore,
    PermissionRefused,
    PublishedWithOtherContent,
    StoreError,
    StoreUnavailable,
    is_published,
)
from gateway.artifacts.manifest import Manifest, RowsPolicy
from gateway.artifacts.open_store_by_url import open_store
from gateway.artifacts.prepare_artifact import PreparedArtifact, prepare_artifact
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_UNAVAILABLE, EX_USAGE, Failure
from gateway.cli.support.transfer_progress import transfer_progress
from gateway.core.escape_unprintable import printable_json
from gateway.deploy.try_unpublished_artifact import ArtifactRejected, try_unpublished_artifact
from gateway.settings import environment_for_backend, state_folder

EX_CANTCREAT = 73
EX_NOPERM = 77

PYTHON_FORMATS = frozenset({"joblib", "skops", "onnx", "xgboost", "lightgbm", "python"})


def publish(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="The model's file, or a folder with all of its files.")
    ],
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    version: Annotated[str, typer.Option("--version", help="The version; it can be published once.")],
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="gs://bucket/prefix or a folder; otherwise the setting (CHIPS_ARTIFACTS)."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="joblib, skops, onnx, xgboost, lightgbm, python, rds, jld2, …; otherwise by the file's suffix.",
        ),
    ] = None,
    signature: Annotated[
        Path | None, typer.Option(help="JSON file: inputs and outputs by name, datatype, shape.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="JSON file: requests and their responses, to check every start by.")
    ] = None,
    rows: Annotated[
        RowsPolicy,
        typer.Option(help="`together`: answers depend on all rows of a request on purpose, as in a ranking."),
    ] = "independent",
    pure: Annotated[
        bool,
        typer.Option(
            "--pure", help="Predicting changes nothing, so a request may be sent twice: for shadows."
        ),
    ] = False,
    runtime: Annotated[
        list[str] | None, typer.Option(help="What it was made with: NAME=VERSION; may be repeated.")
    ] = None,
    by: console.AuthorOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the manifest, store nothing.")] = False,
    trying: Annotated[
        bool,
        typer.Option(
            "--try/--no-try", help="Whether to load it and score its samples first, in a process of its own."
        ),
    ] = True,
    command: Annotated[
        str | None,
        typer.Option(
            "--try-with",
            help="The backend to try it with, such as `Rscript main.R`. [default: the Python one]",
        ),
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Publish an artifact with its manifest.

    It must load and score its samples first. Interrupted, the same command goes on where it stopped.

    Examples:

    `chips publish trained --model wine --version 3`

    `chips publish model.joblib --model wine --version 3 --signature signature.json --samples samples.json`
    """
    try:
        prepared = prepare_artifact(
            source,
            model=model,
            version=version,
            format=format or "",
            created_by=console.author_name(by),
            runtime=_given(runtime or []),
            signature=signature,
            samples=samples,
            rows=rows,
            pure=pure,
        )
    except ValueError as error:
        hint = "name it with --format" if "format cannot be guessed" in str(error) else ""
        raise Failure(str(error), hint=hint, code=EX_DATAERR) from None
    manifest = prepared.manifest
    for warning in prepared.warnings:
        console.note(f"warning: {warning}")
    if dry_run:
        sys.stdout.write(printable_json(manifest.encode().decode()))
        return
    try:
        settings = console.settings_for(None)
        with closing(open_store(store or settings.artifacts, upload_state_folder=state_folder())) as opened:
            console.confirm_protected_write(settings, store=store or settings.artifacts)
            tried = "" if not trying or is_published(opened, manifest) else _try(prepared, command)
            with transfer_progress("published", manifest.total_bytes, shown=not as_json) as told:
                is_new = opened.publish(manifest, dict(prepared.files), told)
            _tell(manifest, opened, tried, is_new=is_new, as_json=as_json)
    except StoreError as error:
        raise store_failure(error) from error


def _try(prepared: PreparedArtifact, command: str | None) -> str:
    """Load and score it in a process of its own. What was seen; raises Failure, before anything is published."""
    words = shlex.split(command) if command else _python_backend(prepared.manifest.format)
    if words is None:
        console.note(
            f"not tried before it is published: no backend for {prepared.manifest.format} is installed here; "
            "--try-with COMMAND names one"
        )
        return ""
    try:
        return try_unpublished_artifact(
            prepared.manifest, prepared.files, words, environ=environment_for_backend()
        )
    except ArtifactRejected as error:
        hint = f"{error.hint}; " if error.hint else ""
        raise Failure(
            f"it cannot be served as it is, so nothing was published: {error}",
            hint=f"{hint}--no-try publishes it all the same",
            code=error.code,
        ) from None


def _python_backend(format: str) -> list[str] | None:
    if format not in PYTHON_FORMATS or find_spec("chips_backend") is None:
        return None
    return [sys.executable, "-m", "chips_backend"]


def _tell(manifest: Manifest, store: ArtifactStore, tried: str, *, is_new: bool, as_json: bool) -> None:
    address = store.address(manifest.model, manifest.version)
    # Where the same was there already, its digest counts: the two differ in who published it, and when.
    digest = (store.manifest(manifest.model, manifest.version) or manifest).digest
    if as_json:
        console.print_json(
            {
                "model": manifest.model,
                "version": manifest.version,
                "artifact": address,
                "digest": digest,
                "bytes": manifest.total_bytes,
                "published": is_new,
                "tried": tried or None,
            }
        )
        return
    if tried:
        console.say("tried", tried)
    console.say(
        "published" if is_new else "unchanged", address + ("" if is_new else " (the same is there already)")
    )
    console.say("digest", digest)
    console.say(
        "next",
        f"CHIPS_MODEL={manifest.model} CHIPS_VERSION={manifest.version} CHIPS_ARTIFACT={shlex.quote(str(address))} python -m chips_backend",
    )


def _given(given: list[str]) -> dict[str, str] | None:
    """What `--runtime` says the model was made with; None where it is not given."""
    pairs = [item.partition("=") for item in given]
    if not all(name and equals and value for name, equals, value in pairs):
        raise Failure("--runtime is written NAME=VERSION, such as R=4.2.2", code=EX_USAGE)
    return {name: value for name, _, value in pairs} or None


def store_failure(error: StoreError) -> Failure:
    """The Failure for an error of the artifact store. It has a hint."""
    if isinstance(error, PublishedWithOtherContent):
        return Failure(str(error), hint="publish under a new --version", code=EX_CANTCREAT)
    if isinstance(error, PermissionRefused):
        return Failure(str(error), code=EX_NOPERM)
    if isinstance(error, StoreUnavailable):
        return Failure(str(error), hint="the same command goes on where it stopped", code=EX_UNAVAILABLE)
    return Failure(str(error), code=EX_DATAERR)
