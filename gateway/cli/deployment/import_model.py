"""`chips import-model`: make a backend folder around a model that another tool saved.

The tools are MLflow, vetiver and Hugging Face's transformers.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from gateway.cli.deployment.new import SCAFFOLD, path_for_new_model, remove_on_failure, write_scaffold
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_UNAVAILABLE, EX_USAGE, Failure
from gateway.deploy.copied_model_source import COPY_NAME, SourceKind, content_digest, write_source
from gateway.deploy.python_with_requirements import python_with_requirements
from gateway.deploy.read_foreign_models import READERS, CannotImport, ForeignModel, write_imported_artifact
from gateway.deploy.target import DeployError
from gateway.settings import state_folder

_TIMEOUT_S: Final = 600
_DOWNLOAD: Final = "import sys, mlflow.artifacts; mlflow.artifacts.download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2])"


def import_model(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="mlflow:PATH, mlflow:models:/NAME/VERSION, vetiver:PIN-FOLDER or hf:FOLDER.",
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", help="The model's name. [default: the one it has there]")
    ] = "",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to put it. [default: models/NAME]")
    ] = None,
    samples: Annotated[
        bool,
        typer.Option(
            "--samples/--no-samples", help="Whether to ask the model for its answers to its example."
        ),
    ] = True,
    as_json: console.JsonOption = False,
) -> None:
    """Make a backend folder of a model that another tool saved.

    Its signature, example and packages come from there.

    The model is loaded only to answer its example, by a Python of its own that has its packages.

    Examples:

    `chips import-model mlflow:models:/churn/3`

    `chips import-model vetiver:pins/prices --name prices`
    """
    kind, _, place = source.partition(":")
    if kind not in READERS or not place:
        raise Failure(
            f"{source} names no kind of model",
            hint=f"write one of {', '.join(f'{each}:PATH' for each in READERS)}",
            code=EX_USAGE,
        )
    origin = _Origin(kind, place)  # type: ignore[arg-type]  # one of READERS
    seen = "" if isinstance(origin.place_or_path, str) else content_digest(origin.place_or_path)
    try:
        with open_foreign_model(kind, place) as model:
            called = name or _as_name(model.name)
            target = path_for_new_model(called, folder)

            answers = remove_on_failure(
                target, lambda: _write(model, called, target, origin, source_digest=seen, samples=samples)
            )
    except CannotImport as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    if as_json:
        console.print_json(
            {"model": target.name, "folder": str(target), "format": model.format, "samples": answers}
        )
        return
    console.say("written", str(target))
    console.say("inputs", ", ".join(f"{one['name']} {one['datatype']}" for one in model.inputs[:12]))
    if answers:
        console.say("samples", f"{answers}, with the model's own answers")
    else:
        console.say("note", "it has no example, so nobody knows what it must answer", style="yellow")
    console.say("next", f"chips deploy {shlex.quote(str(target))}")


def _is_address(kind: str, place: str) -> bool:
    """Whether only MLflow itself can find it."""
    return kind == "mlflow" and ("://" in place or place.startswith(("models:/", "runs:/")))


@contextmanager
def open_foreign_model(kind: str, place: str) -> Iterator[ForeignModel]:
    """Open the model that a tool saved at `place`.

    `kind` names the tool. The model is read as files. Raises CannotImport and Failure.
    """
    if not _is_address(kind, place):
        path = Path(place).expanduser()
        if not path.is_dir():
            raise CannotImport(f"there is no folder {path}")
        yield _read(kind, path.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="chips-import-") as copy:
        _run([_python_with_mlflow(), "-c", _DOWNLOAD, place, copy], f"MLflow does not give {place}")
        (mlmodel,) = list(Path(copy).rglob("MLmodel"))[:1] or [Path(copy) / "MLmodel"]
        parts = place.partition(":")[2].strip("/").split("/")
        yield _read("mlflow", mlmodel.parent, parts[0])


def _read(kind: str, folder: Path, name: str = "") -> ForeignModel:
    try:
        return READERS[kind](folder, name)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise CannotImport(
            f"the description of the model in {folder} is not as {kind} writes it: {type(error).__name__}: {error}"
        ) from None


def _python_with_mlflow() -> str:
    if find_spec("mlflow") is not None:
        return sys.executable
    program = shutil.which("mlflow")
    python = Path(program).resolve().parent / "python" if program else None
    if python is None or not python.exists():
        raise Failure(
            "only MLflow itself finds a model by such an address, and it is not installed here",
            hint="pip install mlflow, or name the model's folder: mlflow:PATH",
            code=EX_UNAVAILABLE,
        )
    return str(python)


class _Origin(NamedTuple):
    """Where a model is imported from."""

    kind: SourceKind
    place: str

    @property
    def place_or_path(self) -> Path | str:
        return self.place if _is_address(self.kind, self.place) else Path(self.place).expanduser()


def _write(
    model: ForeignModel, name: str, target: Path, origin: _Origin, *, source_digest: str, samples: bool
) -> int:
    write_scaffold("python", name, target, model.requirements, left_out=("train.py",))
    settings = target / "backend.toml"
    settings.write_text(
        settings.read_text(encoding="utf-8") + f'format = "{model.format}"\n', encoding="utf-8"
    )
    answers = fill_trained_folder(model, target, samples=samples)
    write_source(target, origin.kind, origin.place_or_path, source_digest=source_digest, samples=samples)
    return answers


def fill_trained_folder(model: ForeignModel, folder: Path, *, samples: bool) -> int:
    """Fill trained/ in `folder` with the model; return the number of samples.

    The folder's requirements.txt exists. Raises Failure.
    """
    trained = folder / COPY_NAME
    write_imported_artifact(model, trained, SCAFFOLD / "import_templates")
    examples = trained / "examples.json"
    if not samples or not model.examples:
        examples.unlink(missing_ok=True)
        return 0
    try:
        python = python_with_requirements(folder, state_folder() / "environments", console.note)
    except DeployError as error:
        raise Failure(str(error), hint=f"{error.hint}; --no-samples does without", code=error.code) from None
    _run(
        [python, "-P", "-m", "chips_backend.complete_import", str(trained.absolute()), model.format],
        "the model does not answer its own example",
        hint="--no-samples imports it all the same",
    )
    for cache in trained.rglob("__pycache__"):
        shutil.rmtree(cache)
    return len(model.examples)


def _run(command: list[str], problem: str, hint: str = "") -> None:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{problem}: it took longer than {_TIMEOUT_S // 60} minutes", hint=hint) from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise Failure(f"{problem}: {said[0]}", hint=hint, code=EX_DATAERR)


def _as_name(given: str) -> str:
    """A model's name as ours may be."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in given.lower()).split())[:40]
