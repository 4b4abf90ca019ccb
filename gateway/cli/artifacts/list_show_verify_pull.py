"""`chips artifacts`: list, show, verify and pull (download) published artifacts."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import typer
from rich.table import Table

from gateway.artifacts.artifact_store_interface import ArtifactStore, Progress, StoreError
from gateway.artifacts.manifest import MANIFEST_NAME, File, Manifest, parse_manifest
from gateway.artifacts.open_store_by_url import open_store
from gateway.cli.artifacts.publish import EX_CANTCREAT, store_failure
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.cli.support.transfer_progress import transfer_progress
from gateway.core.name_validation import check_model_name, check_version
from gateway.settings import state_folder

artifacts = typer.Typer(help="List, show, verify and pull published artifacts.", no_args_is_help=True)

_StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="gs://bucket/prefix or a folder; otherwise the setting (CHIPS_ARTIFACTS)."),
]
_Model = Annotated[str, typer.Argument(help="The model's name.")]
_Version = Annotated[str, typer.Argument(help="Its version.")]


@artifacts.command("list")
def list_(
    model: Annotated[str | None, typer.Argument(help="Only the versions of this model.")] = None,
    store: _StoreOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """List the published artifacts.

    Each line has the model and version, its format, size and digest.

    Example: `chips artifacts list wine --store gs://my-bucket/models`
    """
    with _opened(store) as opened:
        found = [_described(opened, *name) for name in opened.versions(model)]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.say("nothing", "is published here" + (f" of {model}" if model else ""))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("MODEL", "VERSION", "FORMAT", "SIZE", "CREATED", "BY", "DIGEST"):
        table.add_column(heading, justify="right" if heading == "SIZE" else "left", no_wrap=True)
    for entry in found:
        if "problem" in entry:
            table.add_row(entry["model"], entry["version"], entry["problem"])
        else:
            row = (entry[key] for key in ("model", "version", "format"))
            table.add_row(
                *row, _size(entry["bytes"]), entry["created"], entry["created_by"], entry["digest"][:19]
            )
    console.out.print(table)


@artifacts.command()
def show(
    model: _Model, version: _Version, store: _StoreOption = None, as_json: console.JsonOption = False
) -> None:
    """Show one published artifact.

    It shows where it lies, its files, what goes in and out, what it was made with.

    Example: `chips artifacts show wine 3`
    """
    with _opened(store) as opened:
        content, manifest = _found(opened, model, version)
        address = opened.address(model, version)
    if as_json:
        console.print_json(
            {"artifact": address, "digest": _digest(content), "manifest": msgspec.to_builtins(manifest)}
        )
        return
    console.say("artifact", address)
    console.say("digest", _digest(content))
    console.say("format", manifest.format)
    console.say("created", f"{manifest.created} by {manifest.created_by}")
    for name, made_with in manifest.runtime.items():
        console.say("made with", f"{name} {made_with}")
    for file in manifest.files:
        console.say("file", f"{file.path_without_digest}  {_size(file.bytes)}  sha256:{file.sha256[:12]}…")
    for label, tensors in (("input", manifest.signature.inputs), ("output", manifest.signature.outputs)):
        for tensor in tensors:
            console.say(label, f"{tensor.name}  {tensor.datatype} {list(tensor.shape)}")
    console.say("samples", str(len(manifest.samples)))


@artifacts.command()
def verify(
    model: _Model, version: _Version, store: _StoreOption = None, as_json: console.JsonOption = False
) -> None:
    """Verify the files of an artifact against its manifest.

    Every byte is read and compared with the digests. Ends with 65 where one differs.

    Example: `chips artifacts verify wine 3`
    """
    with _opened(store) as opened:
        content, manifest = _found(opened, model, version)
        results: dict[str, str] = {}
        with transfer_progress("verified", manifest.total_bytes, shown=not as_json) as told:
            for file in manifest.files:
                try:
                    _read(opened, manifest, file, told)
                except _Differs as error:
                    results[file.path_without_digest] = str(error)
                else:
                    results[file.path_without_digest] = "ok"
        address = opened.address(model, version)
    good = all(result == "ok" for result in results.values())
    if as_json:
        console.print_json({"artifact": address, "digest": _digest(content), "ok": good, "files": results})
        raise typer.Exit(0 if good else EX_DATAERR)
    for name, result in results.items():
        console.say("ok" if result == "ok" else "WRONG", name + ("" if result == "ok" else f": {result}"))
    if not good:
        raise Failure(
            f"{address} is not what was published",
            hint="publish the model again under a new version; no backend loads this one",
            code=EX_DATAERR,
        )
    console.say("verified", f"{address} is what was published: {_digest(content)}")


@artifacts.command()
def pull(
    model: _Model,
    version: _Version,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to make; otherwise MODEL-VERSION here.")
    ] = None,
    store: _StoreOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Download an artifact to a folder, and check it on the way.

    The folder appears when all of it has arrived; a backend can serve it.

    Example: `chips artifacts pull wine 3 --to /tmp/wine && CHIPS_ARTIFACT=/tmp/wine python -m chips_backend`
    """
    target = to or Path(f"{model}-{version}")
    if target.exists():
        raise Failure(f"{target} exists already", hint="name another folder with --to", code=EX_CANTCREAT)
    draft = target.absolute().parent / f".{target.name}.{uuid4().hex}"
    with _opened(store) as opened:
        content, manifest = _found(opened, model, version)
        try:
            with transfer_progress("pulled", manifest.total_bytes, shown=not as_json) as told:
                for file in manifest.files:
                    path = draft / file.path_without_digest
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _read(opened, manifest, file, told, path)
            (draft / MANIFEST_NAME).write_bytes(content)
            draft.rename(target)
        except _Differs as error:
            raise Failure(
                f"{opened.address(model, version)}: {error}; nothing is kept",
                hint="`chips artifacts verify` checks all of its files",
                code=EX_DATAERR,
            ) from None
        except OSError as error:
            raise Failure(
                f"{target} cannot be written: {error.strerror or error}", code=EX_CANTCREAT
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    if as_json:
        console.print_json({"folder": str(target), "digest": _digest(content), "bytes": manifest.total_bytes})
        return
    console.say("pulled", f"{target} ({_size(manifest.total_bytes)}, {len(manifest.files)} file(s))")
    console.say("digest", _digest(content))


class _Differs(Exception):
    """A stored file is not what the manifest says."""


def _read(
    store: ArtifactStore, manifest: Manifest, file: File, told: Progress, target: Path | None = None
) -> None:
    """Read one file block by block, into `target` where given. Raises _Differs."""
    digest, size = hashlib.sha256(), 0
    stream = target.open("xb") if target is not None else None
    try:
        for block in store.unverified_file_blocks(manifest, file):
            digest.update(block)
            size += len(block)
            if size > file.bytes:
                break
            told(len(block))
            if stream is not None:
                stream.write(block)
    except FileNotFoundError:
        raise _Differs(f"{file.path_without_digest} is missing") from None
    finally:
        if stream is not None:
            stream.close()
    if size != file.bytes:
        raise _Differs(
            f"{file.path_without_digest} has {'more' if size > file.bytes else 'fewer'} than the {file.bytes} bytes of its manifest"
        )
    if digest.hexdigest() != file.sha256:
        raise _Differs(f"{file.path_without_digest} has another SHA-256 than in its manifest")


@contextmanager
def _opened(url: str | None) -> Iterator[ArtifactStore]:
    try:
        with closing(
            open_store(url or console.settings_for(None).artifacts, upload_state_folder=state_folder())
        ) as opened:
            yield opened
    except StoreError as error:
        raise store_failure(error) from error


def _found(store: ArtifactStore, model: str, version: str) -> tuple[bytes, Manifest]:
    try:
        content = store.manifest_content(check_model_name(model), check_version(version))
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    if content is None:
        raise Failure(
            f"{store.address(model, version)} is not published",
            hint=f"`chips artifacts list {model}` shows which versions are",
            code=EX_DATAERR,
        )
    try:
        return content, parse_manifest(content)
    except ValueError as error:
        raise Failure(f"{store.address(model, version)}: {error}", code=EX_DATAERR) from None


def _described(store: ArtifactStore, model: str, version: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"model": model, "version": version}
    try:
        content, manifest = _found(store, model, version)
    except Failure as failure:
        return {**entry, "problem": failure.message}
    return {
        **entry,
        "format": manifest.format,
        "bytes": manifest.total_bytes,
        "created": manifest.created,
        "created_by": manifest.created_by,
        "artifact": store.address(model, version),
        "digest": _digest(content),
    }


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
