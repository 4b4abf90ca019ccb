"""Find the backend library of each language. A backend folder depends on it and does not contain it."""

from pathlib import Path
from typing import Final

import gateway


class BackendLibrariesNotShipped(Exception):
    """This installation of CHIPS does not contain its backend libraries."""


# What an image is made of, next to a person's own files.
_BUILD_FILES: Final = {
    "python": ("chips_backend", "pyproject.toml", "requirements.lock", "Dockerfile", ".dockerignore"),
    "r": ("R", "src", "main.R", "predict.R", "entrypoint.sh", "DESCRIPTION", "Dockerfile", ".dockerignore"),
    "julia": ("src", "ext", "bin", "sysimage", "Project.toml", "Dockerfile", ".dockerignore"),
}
_LEFT_OUT: Final = frozenset({"__pycache__"})


def _library_root() -> Path:
    """The folder of the reference backends and examples: in the checkout, or in the wheel, which contains them."""
    package = Path(gateway.__file__).parent
    for root in (package / "templates", package.parent):
        if (root / "backends").is_dir():
            return root
    raise BackendLibrariesNotShipped(
        "this installation lacks the backend libraries: install chips-gateway from its wheel or a checkout"
    )


def library_folder(language: str) -> Path:
    return _library_root() / "backends" / language


def library_files_for_build(language: str) -> list[tuple[str, Path]]:
    """The files of a language's library that a build needs. Each is (path in the build, path here)."""
    found = []
    for name in _BUILD_FILES[language]:
        place = library_folder(language) / name
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        found += [
            (file.relative_to(library_folder(language)).as_posix(), file)
            for file in files
            if file.is_file() and not _LEFT_OUT & set(file.parts)
        ]
    return found
