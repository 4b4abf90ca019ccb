"""Refresh the copied model in a backend folder if its source has changed. Each deployment does so first."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.cli.deployment.import_model import fill_trained_folder, open_foreign_model
from gateway.cli.deployment.new import (
    copy_prepared_artifact,
    prepare_as_published,
    requirements_lines,
    write_requirements,
)
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.deploy.copied_model_source import (
    COPY_NAME,
    REQUIREMENTS_NAME,
    SOURCE_NAME,
    CopiedModelSource,
    content_digest,
    read_source,
    write_source,
)
from gateway.deploy.read_foreign_models import CannotImport


class _Copy(NamedTuple):
    """A backend folder, and the record of where its model came from."""

    folder: Path
    record: CopiedModelSource

    @property
    def source(self) -> str:
        return self.record.display_text(self.folder)


@contextmanager
def bring_model_up_to_date(folder: Path, *, refresh: bool | None, dry_run: bool) -> Iterator[Path | None]:
    """Replace the copied model in `folder` if its source has changed; only a dry run yields a path, the newer artifact's.

    The copy is its trained/. A dry run does not change the folder. `refresh`: True takes the source even if nothing has
    changed or the copy was edited, False leaves the copy as it is. Yields None where the folder has what is to be deployed.
    Raises Failure; nothing is lost.
    """
    copy = _copy_in(folder)
    if copy is None and refresh:
        raise Failure(
            f"the model in {folder} was not copied from anywhere: it has no {SOURCE_NAME}", code=EX_DATAERR
        )
    if copy is None or not _is_due(copy, refresh):
        yield None
        return
    seen = content_digest(copy.record.copied_from(folder)) if copy.record.is_path else ""
    with tempfile.TemporaryDirectory(prefix=".refresh-", dir=None if dry_run else folder) as place:
        needs = _take(copy, Path(place))
        if dry_run:
            console.note(f"{COPY_NAME}/ would be replaced by {copy.source}, which is checked here")
            yield Path(place) / COPY_NAME
            return
        _replace(copy, Path(place), needs, seen)
    console.note(f"{folder / COPY_NAME} was replaced by {copy.source}")
    yield None


def note_stale_model(folder: Path) -> None:
    """Note on the terminal that the model in `folder` is stale. Its source has changed since it was copied."""
    copy = _copy_in(folder)
    if copy is not None and copy.record.has_changed(folder):
        console.note(
            f"{copy.source} has changed since it was copied to {folder / COPY_NAME}: "
            f"chips deploy {shlex.quote(str(folder))} takes the new one"
        )


def source_path(folder: Path) -> Path | None:
    """The path that the folder's model was copied from. None where it was not copied, or not from a path."""
    copy = _copy_in(folder)
    return None if copy is None or not copy.record.is_path else copy.record.copied_from(folder)


def _copy_in(folder: Path) -> _Copy | None:
    try:
        record = read_source(folder)
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    return None if record is None else _Copy(folder, record)


def _is_due(copy: _Copy, refresh: bool | None) -> bool:
    folder, record = copy
    is_there = not record.is_path or record.copied_from(folder).exists()
    if refresh and not is_there:
        raise Failure(
            f"{copy.source}, from which the model was copied, is not there any more",
            hint="train again, or leave out --refresh to deploy the copy",
            code=EX_DATAERR,
        )
    if refresh is not None:
        return refresh
    is_missing = not (folder / COPY_NAME).exists()
    if is_missing or not record.has_changed(folder):
        return is_missing and is_there
    if record.is_copy_edited(folder):
        command = f"chips deploy {shlex.quote(str(folder))}"
        raise Failure(
            f"{folder / COPY_NAME} was edited after it was copied from {copy.source}, which has changed too",
            hint=f"{command} --refresh takes the new model and drops the edits; {command} --no-refresh deploys the folder as it is",
            code=EX_DATAERR,
        )
    return True


def _take(copy: _Copy, place: Path) -> list[str] | None:
    """The model as it is now, into `place`; returns what it needs, or None where the folder has no requirements.txt."""
    folder, record = copy
    has_requirements = (folder / REQUIREMENTS_NAME).exists()
    is_edited = has_requirements and record.are_requirements_edited(folder)
    if record.kind == "saved":
        prepared = prepare_as_published(record.copied_from(folder), folder.absolute().name)
        copy_prepared_artifact(prepared, place / COPY_NAME)
        needs = requirements_lines(prepared)
    else:
        needs = _import(copy, place, is_edited=is_edited)
    if is_edited:
        console.note(
            f"{folder / REQUIREMENTS_NAME} was edited, so it stays; the model now needs {', '.join(needs)}"
        )
    return needs if has_requirements and not is_edited else None


def _import(copy: _Copy, place: Path, *, is_edited: bool) -> list[str]:
    folder, record = copy
    where = str(record.copied_from(folder)) if record.is_path else record.place
    try:
        with open_foreign_model(record.kind, where) as model:
            if is_edited:
                shutil.copyfile(folder / REQUIREMENTS_NAME, place / REQUIREMENTS_NAME)
            else:
                write_requirements(place, model.requirements)
            fill_trained_folder(model, place, samples=record.samples)
            return list(model.requirements)
    except CannotImport as error:
        raise Failure(str(error), code=EX_DATAERR) from None


def _replace(copy: _Copy, place: Path, needs: list[str] | None, source_digest: str) -> None:
    folder, record = copy
    trained = folder / COPY_NAME
    if trained.exists():
        trained.rename(place / "replaced")
    (place / COPY_NAME).rename(trained)
    if needs is not None:
        write_requirements(folder, needs)
    write_source(
        folder,
        record.kind,
        record.copied_from(folder) if record.is_path else record.place,
        source_digest=source_digest,
        requirements_digest=record.requirements_digest if needs is None else None,
        samples=record.samples,
    )
