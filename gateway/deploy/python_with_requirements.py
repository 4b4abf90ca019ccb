"""Find or make a Python interpreter that has a backend folder's requirements.

They are the packages of its requirements.txt. If the running Python has them, it is used. Otherwise a virtual environment
is made, once for each content of requirements.txt, and shared by all models with the same content.
"""

import contextlib
import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from gateway.deploy.backend_libraries import library_files_for_build, library_folder
from gateway.deploy.target import DeployError, Tell

REQUIREMENTS_NAME: Final = "requirements.txt"
_SAME_MODULE: Final = {"xgboost": "xgboost-cpu"}  # the same without what GPUs need
_COMPLETE: Final = "complete"
_INSTALL_TIMEOUT_S: Final = 1800
_LINES: Final = 12


def python_with_requirements(folder: Path, environments: Path, tell: Tell) -> str:
    """A Python interpreter that has the requirements of `folder`.

    Virtual environments are kept below `environments`. Raises DeployError where the requirements cannot be installed.
    """
    requirements = folder / REQUIREMENTS_NAME
    content = requirements.read_bytes() if requirements.exists() else b""
    missing = _missing(content.decode(errors="replace"))
    if not missing:
        return sys.executable
    place = environments / _key(content)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # two deploys at once: one waits, and finds what the other made
        if not (place / _COMPLETE).exists():
            tell(
                f"installing {REQUIREMENTS_NAME} in an environment of its own, since this Python lacks {missing[0]}"
            )
            _install(place, requirements if content else None)
            (place / _COMPLETE).touch()
    return str(place / "venv/bin/python")


def _missing(content: str) -> list[str]:
    """The requirements that this Python does not meet; what only an installer understands counts as such."""
    found = [] if find_spec("chips_backend") is not None else ["chips_backend"]
    for line in content.splitlines():
        text = line.partition(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        try:
            is_met = _is_met(Requirement(text))
        except InvalidRequirement:
            is_met = False
        if not is_met:
            found.append(text)
    return found


def _is_met(wanted: Requirement) -> bool:
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    if wanted.url is not None:
        return False
    version = _version(wanted.name) or _version(_SAME_MODULE.get(wanted.name, ""))
    if version is None:
        return False
    if not wanted.specifier.contains(version, prereleases=True):
        return False
    if not wanted.extras:
        return True
    needed = [Requirement(text) for text in metadata.requires(wanted.name) or ()]
    return all(
        _is_met(Requirement(str(each).partition(";")[0]))
        for each in needed
        for extra in wanted.extras
        if each.marker is not None
        and each.marker.evaluate({"extra": extra})
        and not each.marker.evaluate({"extra": ""})
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package) if package else None
    except metadata.PackageNotFoundError:
        return None


def _key(content: bytes) -> str:
    found = hashlib.sha256(f"{sys.executable} {platform.python_version()}\n".encode() + content)
    for name, path in library_files_for_build("python"):
        found.update(name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _install(place: Path, requirements: Path | None) -> None:
    venv = place / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    uv = shutil.which("uv")
    project = tomllib.loads((library_folder("python") / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["pandas"]]
    if requirements is not None:
        wanted += ["-r", str(requirements.absolute())]
    python = str(venv / "bin/python")
    installed = False
    if uv is not None:
        with contextlib.suppress(DeployError):  # it does not read pip's settings: an index, certificates
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)])
            _run([uv, "pip", "install", "--quiet", "--python", python, *wanted])
            installed = True
    if not installed:
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)])
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    packages = next((venv / "lib").glob("python*/site-packages"))
    shutil.copytree(
        library_folder("python") / "chips_backend",
        packages / "chips_backend",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeployError(
            f"the requirements were not installed within {_INSTALL_TIMEOUT_S // 60} minutes"
        ) from None
    if done.returncode:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-_LINES:])
        raise DeployError(
            f"the requirements cannot be installed:\n{said}",
            hint=f"correct {REQUIREMENTS_NAME}, then run the same command again",
            code=65,
        )
