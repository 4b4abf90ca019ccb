"""Recognize wrong files by their content: empty, a Git LFS pointer, a web page, a pickle of a class that is not installed."""

import re
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 512
_LFS: Final = b"version https://git-lfs.github.com/spec/"


class WrongArtifact(ValueError):
    """The artifact is not what this backend can serve; the text says what to publish instead."""


def check_file(path: Path) -> None:
    """Raise WrongArtifact where the file is no model at all."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise WrongArtifact(f"{path.name} is empty: save the model again and publish that file")
    if head.startswith(_LFS):
        raise WrongArtifact(
            f"{path.name} is a Git LFS pointer and not the model itself: run `git lfs pull`, then publish again"
        )
    if re.match(rb"\s*<(?:!doctype html|html|\?xml)", head, re.IGNORECASE):
        raise WrongArtifact(
            f"{path.name} is a web page (HTML or XML) and not a model: the download needed a login, most likely"
        )


def explain_unpickling(error: BaseException, name: str) -> WrongArtifact | None:
    """What an error of pickle means for who published; None where it says so itself."""
    text = str(error)
    script = re.search(r"Can't get attribute '([^']+)' on <module '__(?:mp_)?main__'", text)
    if script:
        return WrongArtifact(
            f"{name} uses {script.group(1)!r} of the script that trained it, and a pickle holds only its name: "
            f"put {script.group(1)!r} into a module that is installed with this backend, import it from there in training, "
            "and save the model again"
        )
    missing = re.search(r"Can't get attribute '([^']+)' on <module '([^']+)'", text)
    if missing:
        return WrongArtifact(
            f"{name} uses {missing.group(2)}.{missing.group(1)}, which the version of {missing.group(2).partition('.')[0]} "
            "that is installed here does not have: install the version that the model was made with"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        return WrongArtifact(
            f"{name} needs the module {error.name!r}, which is not installed here: add its package to pyproject.toml"
        )
    if isinstance(error, KeyError | EOFError | IndexError) or re.search("pickl|EOF|reading array data", text):
        return WrongArtifact(
            f"{name} is no complete file of joblib or pickle ({type(error).__name__}: {text}): is it the right file, and whole?"
        )
    return None
