"""`chips new`: make a backend folder for a new model. It starts from an example, or from a model that is there."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import typer

from gateway.artifacts.prepare_artifact import PreparedArtifact, prepare_artifact
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.decode_text_file import decode_text_file
from gateway.core.name_validation import check_model_name
from gateway.deploy.backend_folder import PREDICT_NAMES, SETTINGS_NAME
from gateway.deploy.copied_model_source import COPY_NAME, REQUIREMENTS_NAME, content_digest, write_source

_T = TypeVar("_T")

SCAFFOLD: Final = Path(__file__).parent.parent / "scaffold"
_EXAMPLE_NEEDS: Final = ("pandas", "scikit-learn", "skops")
_TRAINING_SCRIPTS: Final = ("train.py", "train.R", "train.jl")
_PYTHON_PACKAGE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # PEP 508
_PYTHON_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")  # PEP 440, and those of R
_JULIA_PACKAGE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JULIA_BOUND: Final = re.compile(r"[0-9A-Za-z.,^~=<>≥≤ +*-]+")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new(
    language: Annotated[
        Literal["python", "r", "julia"], typer.Argument(help="What the model is written in.")
    ],
    name: Annotated[str, typer.Argument(help="The model's name; the folder has it too.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to put it. [default: models/NAME]")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A model that is there: a folder that `save` wrote, or a model's file."),
    ] = None,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="Also write predict.py, predict.R or predict.jl: code around the model; only that where the folder is there.",
        ),
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Write a backend folder for a model.

    It has a small model to start from, or your own with --from. Nothing that is there is overwritten, and a model's file is
    copied without being loaded.

    Examples:

    `chips new python churn --from trained`

    `chips new python churn && cd models/churn && make train test`
    """
    if predict and source is None and _add_predict(language, name, folder, as_json=as_json):
        return
    target = path_for_new_model(name, folder)
    seen = "" if source is None else content_digest(source)
    prepared = None if source is None else prepare_as_published(source, name)

    def write() -> None:
        _write(language, name, target, prepared, predict=predict)
        if source is not None:
            write_source(target, "saved", source, source_digest=seen)

    remove_on_failure(target, write)
    if as_json:
        console.print_json({"model": name, "language": language, "folder": str(target)})
        return
    console.say("written", str(target))
    for warning in prepared.warnings if prepared is not None else ():
        console.say("warning", warning, style="yellow")
    if prepared is not None and not prepared.manifest.samples:
        console.say(
            "note",
            f"it has no samples, so nobody knows what it must answer: {_where_samples_are(source)}",
            style="yellow",
        )
    steps = "chips verify ." if prepared is not None else "make train test"
    steps = f"make setup && {steps}" if language == "julia" else steps
    console.say("next", f"cd {shlex.quote(str(target))} && {steps} && chips deploy .")


def _add_predict(language: str, name: str, folder: Path | None, *, as_json: bool) -> bool:
    """Write only the file for code around the model where its backend folder is there; False where it is not. Raises Failure."""
    target = folder or Path("models") / name
    settings = target / SETTINGS_NAME
    if not settings.is_file():
        return False
    if f'language = "{language}"' not in settings.read_text(encoding="utf-8", errors="replace"):
        raise Failure(f"{settings} says that its model is not in {language}", code=EX_DATAERR)
    file = target / PREDICT_NAMES[language]
    if file.exists():
        raise Failure(f"{file} is there already", hint="edit it, or delete it first", code=EX_DATAERR)
    write_template(SCAFFOLD / "optional" / language / file.name, file, name)
    if as_json:
        console.print_json({"model": name, "language": language, "folder": str(target)})
    else:
        console.say("written", str(file))
    return True


def _where_samples_are(source: Path | None) -> str:
    if source is not None and source.is_file() and (source.parent / "samples.json").is_file():
        return f"--from {shlex.quote(str(source.parent))} takes those next to it"
    return "`save` writes some"


def path_for_new_model(name: str, folder: Path | None) -> Path:
    """The path of the folder for a new model. Raises Failure where the name is not valid or the folder is not empty."""
    try:
        check_model_name(name)
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    target = folder or Path("models") / name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Failure(
            f"{target} is there already, and not empty", hint="choose another --folder", code=EX_DATAERR
        )
    return target


def remove_on_failure(target: Path, work: Callable[[], _T]) -> _T:
    """Run `work`, and remove what it wrote if it fails. `target` is the new or empty folder that it fills."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        return work()
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise Failure(f"{target} cannot be written: {error}", code=EX_DATAERR) from None
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def write_scaffold(
    language: str, name: str, target: Path, requirements: Sequence[str], *, left_out: Sequence[str] = ()
) -> None:
    """Write the files of a scaffold. The model's name is filled in."""
    own = SCAFFOLD / language
    for source in sorted(own.rglob("*")):
        if source.is_file() and source.name not in left_out and "__pycache__" not in source.parts:
            write_template(source, target / source.relative_to(own), name, requirements)


def write_template(source: Path, path: Path, name: str, requirements: Sequence[str] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8").replace("@NAME@", name)
    path.write_text(text.replace("@REQUIREMENTS@", "\n".join(requirements)), encoding="utf-8")


def prepare_as_published(source: Path, name: str) -> PreparedArtifact:
    """Prepare the artifact of a model's files as `chips publish` would. Raises Failure."""
    try:
        return prepare_artifact(source, model=name, version="1", created_by="")
    except ValueError as error:
        hint = "rename it to its format's suffix, such as model.joblib" if "guessed" in str(error) else ""
        raise Failure(str(error), hint=hint, code=EX_DATAERR) from None


def _write(
    language: str, name: str, target: Path, prepared: PreparedArtifact | None, *, predict: bool
) -> None:
    if prepared is None:
        needs = _installed(_EXAMPLE_NEEDS) if language == "python" else ()
        write_scaffold(language, name, target, needs)
    else:
        needs = (
            saved_julia_dependency_lines(prepared) if language == "julia" else requirements_lines(prepared)
        )
        write_scaffold(language, name, target, needs, left_out=_TRAINING_SCRIPTS)
        copy_prepared_artifact(prepared, target / COPY_NAME)
    if predict:
        file = PREDICT_NAMES[language]
        write_template(SCAFFOLD / "optional" / language / file, target / file, name)


def requirements_lines(prepared: PreparedArtifact) -> list[str]:
    """The packages that a model needs, as lines of requirements.txt. Raises Failure."""
    needs = {name: version for name, version in prepared.manifest.runtime.items() if name != "python"}
    _check_packages("runtime.json", needs, _PYTHON_PACKAGE, _PYTHON_VERSION)
    return [f"{package}=={version}" for package, version in needs.items()]


def _check_packages(
    file: str, given: Mapping[str, object], package: re.Pattern[str], value: re.Pattern[str]
) -> None:
    """What a model's folder names becomes part of a file that other programs obey. Raises Failure."""
    for name, what in given.items():
        if not (package.fullmatch(name) and isinstance(what, str) and value.fullmatch(what)):
            raise Failure(
                f"{file} next to the model: {name[:80]!r} with {str(what)[:80]!r} names no package",
                hint="save the model again, or write the name and version of the package there",
                code=EX_DATAERR,
            )


def saved_julia_dependency_lines(prepared: PreparedArtifact) -> list[str]:
    """The packages that a Julia model needs, from the Project.toml that `save_model` wrote next to the model.

    They are lines of a Project.toml, and continue its section [deps]. Empty where none was written. Raises Failure.
    """
    project = dict(prepared.files).get("Project.toml")
    if project is None:
        return []
    try:
        content = tomllib.loads(decode_text_file(project.read_bytes()))
        packages, bounds = content.get("deps", {}), content.get("compat", {})
        _check_packages("Project.toml", packages, _JULIA_PACKAGE, _UUID)
        _check_packages("Project.toml", bounds, _JULIA_PACKAGE, _JULIA_BOUND)
        return [
            *(f'{package} = "{uuid}"' for package, uuid in packages.items()),
            "",
            "[compat]",
            *(f'{package} = "{bound}"' for package, bound in bounds.items()),
        ]
    except (ValueError, AttributeError) as error:
        raise Failure(f"{project} is not a Project.toml: {error}", code=EX_DATAERR) from None


def write_requirements(folder: Path, needs: Sequence[str]) -> None:
    write_template(SCAFFOLD / "python" / REQUIREMENTS_NAME, folder / REQUIREMENTS_NAME, "", needs)


def _installed(packages: Sequence[str]) -> list[str]:
    """Those that `save` will use where they are installed, and those that the example needs."""
    from importlib.util import find_spec

    return [package for package in packages if package != "skops" or find_spec("skops") is not None]


def copy_prepared_artifact(prepared: PreparedArtifact, trained: Path) -> None:
    """Copy the prepared artifact to `trained`. Its files and their description have the form that `chips publish` takes."""
    import msgspec

    for name, source in prepared.files:
        _copy(source, trained / name)
    manifest = prepared.manifest
    for name, content in (
        ("signature.json", manifest.signature),
        ("samples.json", manifest.samples),
        ("runtime.json", prepared.stated_runtime),
    ):
        if content and (name != "signature.json" or manifest.signature.inputs or manifest.signature.outputs):
            (trained / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
