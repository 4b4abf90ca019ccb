"""`chips publish`: put a trained model where backends find it, as a version that never changes."""

import platform
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.artifacts.manifest import (
    Manifest,
    RowsPolicy,
    Sample,
    Signature,
    build_manifest,
    collect_files,
    guess_format,
)
from gateway.artifacts.store import (
    AlreadyPublished,
    ArtifactStore,
    PermissionRefused,
    StoreError,
    StoreUnavailable,
    open_store,
)
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_UNAVAILABLE, EX_USAGE, Failure
from gateway.cli.support.transfer_progress import progress
from gateway.settings import state_folder

EX_CANTCREAT = 73
EX_NOPERM = 77

_PYTHON_FORMATS = frozenset({"joblib", "skops", "onnx", "xgboost", "lightgbm", "python"})
_PYTHON_PACKAGES = (
    *("scikit-learn", "numpy", "pandas", "joblib", "skops"),
    *("onnxruntime", "xgboost", "xgboost-cpu", "lightgbm"),
)


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
    runtime: Annotated[
        list[str] | None, typer.Option(help="What it was made with: NAME=VERSION; may be repeated.")
    ] = None,
    by: console.AuthorOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the manifest, store nothing.")] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Publish an artifact with its manifest. Interrupted, the same command goes on where it stopped.

    Example: `chips publish model.joblib --model wine --version 3 --signature signature.json --samples samples.json`
    """
    try:
        files = collect_files(source)
        manifest = build_manifest(
            files,
            model=model,
            version=version,
            format=format or guess_format(files),
            created_by=console.author(by),
            signature=read_json(signature, Signature),
            samples=read_json(samples, list[Sample]) or (),
            rows=rows,
        )
    except ValueError as error:
        hint = "name it with --format" if "format" in str(error) else ""
        raise Failure(str(error), hint=hint, code=EX_DATAERR) from None
    manifest = msgspec.structs.replace(manifest, runtime=_runtime(runtime or [], manifest.format))
    if dry_run:
        sys.stdout.write(manifest.encode().decode())
        return
    try:
        settings = console.settings_for(None)
        with closing(open_store(store or settings.artifacts, state_folder=state_folder())) as opened:
            console.confirm_write(settings, store=store or settings.artifacts)
            with progress("published", manifest.total_bytes, shown=not as_json) as told:
                is_new = opened.publish(manifest, dict(files), told)
            _tell(manifest, opened, is_new=is_new, as_json=as_json)
    except StoreError as error:
        raise store_failure(error) from error


def _tell(manifest: Manifest, store: ArtifactStore, *, is_new: bool, as_json: bool) -> None:
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
            }
        )
        return
    console.say(
        "published" if is_new else "unchanged", address + ("" if is_new else " (the same is there already)")
    )
    console.say("digest", digest)
    console.say(
        "next",
        f"CHIPS_MODEL={manifest.model} CHIPS_VERSION={manifest.version} CHIPS_ARTIFACT={address} python -m chips_backend",
    )


def read_json(path: Path | None, kind: Any) -> Any:
    """A JSON file as `kind`; None without a path. ValueError says which file is wrong, and where."""
    if path is None:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _runtime(given: list[str], format: str) -> dict[str, str]:
    """What the model was made with: as given, else what runs here, where that is likely the same."""
    if given:
        pairs = [item.partition("=") for item in given]
        if not all(name and equals and value for name, equals, value in pairs):
            raise Failure("--runtime is written NAME=VERSION, such as R=4.2.2", code=EX_USAGE)
        return {name: value for name, _, value in pairs}
    return packages_here(format)


def packages_here(format: str) -> dict[str, str]:
    """The versions that a Python model was likely made with: those that are installed here."""
    if format not in _PYTHON_FORMATS:
        return {}
    found = {"python": platform.python_version()}
    for package in _PYTHON_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def store_failure(error: StoreError) -> Failure:
    """What to say where the artifact store cannot do it."""
    if isinstance(error, AlreadyPublished):
        return Failure(str(error), hint="publish under a new --version", code=EX_CANTCREAT)
    if isinstance(error, PermissionRefused):
        return Failure(str(error), code=EX_NOPERM)
    if isinstance(error, StoreUnavailable):
        return Failure(str(error), hint="the same command goes on where it stopped", code=EX_UNAVAILABLE)
    return Failure(str(error), code=EX_DATAERR)
