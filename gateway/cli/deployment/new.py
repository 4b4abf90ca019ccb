"""`chips new`: a backend folder from the templates, whose tests pass at once."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import typer

import gateway
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.names import check_model_name


class _Template(NamedTuple):
    """What is taken from a reference backend and, under the same paths, from its example."""

    backend: Sequence[str]
    example: tuple[str, str]  # a folder of the checkout, and where it goes


_TEMPLATES: Final = {
    "python": _Template(
        ("chips_backend", "pyproject.toml", "requirements.lock", "Dockerfile", ".dockerignore"),
        ("examples/wine", "examples/wine"),
    ),
    "r": _Template(
        (
            "R",
            "src",
            "main.R",
            "predict.R",
            "entrypoint.sh",
            "DESCRIPTION",
            "Dockerfile",
            ".dockerignore",
            ".lintr",
        ),
        ("backends/r/examples/co2", "examples/co2"),
    ),
    "julia": _Template(
        (
            "src",
            "ext",
            "bin",
            "sysimage",
            "Project.toml",
            "Dockerfile",
            ".dockerignore",
            ".JuliaFormatter.toml",
        ),
        ("backends/julia/examples/wine", "examples/wine"),
    ),
}
_OPTIONAL: Final = frozenset({"Dockerfile", ".dockerignore", ".lintr", ".JuliaFormatter.toml"})
_JUNK: Final = shutil.ignore_patterns("__pycache__", "*.pyc")


def new(
    language: Annotated[
        Literal["python", "r", "julia"], typer.Argument(help="What the model is written in.")
    ],
    name: Annotated[str, typer.Argument(help="The model's name; the folder has it too.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to put it. [default: models/NAME]")
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write a backend folder with a model to start from: train, test and deploy it at once, then make it yours.

    Example: `chips new python churn && cd models/churn && make test`
    """
    try:
        check_model_name(name)
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    target = folder or Path("models") / name
    if target.exists() and any(target.iterdir()):
        raise Failure(
            f"{target} is there already, and not empty", hint="choose another --folder", code=EX_DATAERR
        )
    _write(language, name, target)
    if as_json:
        console.print_json({"model": name, "language": language, "folder": str(target)})
        return
    console.say("written", str(target))
    console.say("next", f"cd {target} && make train test && chips deploy . --target local")


def _write(language: str, name: str, target: Path) -> None:
    root = _root()
    template = _TEMPLATES[language]
    for entry in template.backend:
        source = root / "backends" / language / entry
        if entry in _OPTIONAL and not source.exists():
            continue
        _copy(source, target / entry)
    example, place = template.example
    _copy(root / example, target / place)
    own = Path(__file__).parent.parent / "scaffold" / language
    for source in sorted(own.rglob("*")):
        if source.is_file():
            path = target / source.relative_to(own)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source.read_text(encoding="utf-8").replace("@NAME@", name), encoding="utf-8")


def _root() -> Path:
    """Where the reference backends lie: in the checkout, or in the wheel, which carries them."""
    package = Path(gateway.__file__).parent
    for root in (package / "templates", package.parent):
        if (root / "backends").is_dir():
            return root
    raise Failure(
        "this installation lacks the templates", hint="install chips-gateway from its wheel or a checkout"
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_JUNK)
    else:
        shutil.copy(source, target)
