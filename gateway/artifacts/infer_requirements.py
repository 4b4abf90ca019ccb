"""Infer the Python packages that a model needs from the contents of its files.

Together with their versions, they become `runtime` in the manifest.

They become `runtime` in the manifest. Which package a module belongs to, and the versions that the files do not name,
come from what is installed here, where the model was most likely made.
"""

import ast
import json
import platform
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from gateway.artifacts.packages_of_modules import packages_by_module
from gateway.artifacts.pickle_scan import scan_pickle

SCRIPT: Final = "__main__"
_PICKLES: Final = (".joblib", ".pkl", ".pickle")
_TAIL_BYTES: Final = 4096
_XGBOOST_JSON: Final = re.compile(rb'"version":\s*\[(\d+),\s*(\d+),\s*(\d+)\]')
_XGBOOST_UBJ: Final = re.compile(rb"version\[#L\x00{7}\x03[iU](.)[iU](.)[iU](.)", re.DOTALL)


class ModelRequirements:
    """The packages that a model needs, with their versions. Modules of no package are listed, too."""

    def __init__(self) -> None:
        self.packages: dict[str, str] = {}
        self.older: list[str] = []  # what saved the file, where another release of it is installed here
        self.own: dict[
            str, list[str]
        ] = {}  # module of the author's own -> names that the model takes from it


def infer_requirements(files: Sequence[tuple[str, Path]], format: str) -> ModelRequirements:  # noqa: A002
    """Infer the packages that a model needs from its files.

    The files are not run. ValueError says which file cannot be read, and why.
    """
    needed = ModelRequirements()
    if format == "joblib":
        for name, path in files:
            if path.suffix in _PICKLES:
                _add_pickle(needed, name, path)
        _add_modules(needed, _modules_of_sources(files))
    elif format == "skops":
        for name, path in files:
            if path.suffix == ".skops":
                _add_modules(needed, _modules_of_skops(name, path))
    elif format == "python":
        _add_modules(needed, _modules_of_sources(files))
    elif format in {"onnx", "xgboost", "lightgbm"}:
        package = _first_installed(_RUNTIMES[format])
        needed.packages[package] = _version(package)
        if format == "xgboost":
            needed.packages[package] = next(
                (v for _, p in files if (v := _xgboost_version(p))), _version(package)
            )
    else:
        return needed
    own = {Path(name).parts[0].removesuffix(".py") for name, _ in files}
    for module in own & set(needed.own):
        del needed.own[module]
    needed.packages = {
        "python": platform.python_version(),
        **{name: version for name, version in sorted(needed.packages.items()) if version},
    }
    return needed


_RUNTIMES: Final[Mapping[str, tuple[str, ...]]] = {
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
    "xgboost": ("xgboost", "xgboost-cpu"),
    "lightgbm": ("lightgbm",),
}


def _add_pickle(needed: ModelRequirements, name: str, path: Path) -> None:
    try:
        contents = scan_pickle(path)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    _add_modules(needed, (module for module, _ in contents.imported_names))
    for module, what in sorted(contents.imported_names):
        top = module.partition(".")[0]
        if top in needed.own:
            needed.own[top].append(what)
    for package, version in contents.package_versions.items():
        here = _version(package)
        if here and here.split(".")[:2] != version.split(".")[:2]:
            needed.older.append(f"{package} {version} saved it, and {package} {here} is installed here")
    needed.packages |= contents.package_versions


def _add_modules(needed: ModelRequirements, modules: Iterable[str]) -> None:
    tops = {module.partition(".")[0] for module in modules if module}
    tops -= sys.stdlib_module_names - {SCRIPT}
    known = packages_by_module(tops)
    for top in sorted(tops):
        if top in known:
            needed.packages.setdefault(known[top], _version(known[top]))
        else:
            needed.own.setdefault(top, [])


def _modules_of_sources(files: Sequence[tuple[str, Path]]) -> list[str]:
    return [module for name, path in files if path.suffix == ".py" for module in _imports(name, path)]


def _modules_of_skops(name: str, path: Path) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            schema = json.loads(archive.read("schema.json"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{name}: it is no skops file: {error}") from None
    yield "skops"
    yield from _modules_in(schema)


def _modules_in(content: Any) -> Iterator[str]:
    found = [content]
    while found:
        entry = found.pop()
        if isinstance(entry, dict):
            if isinstance(entry.get("__module__"), str):
                yield entry["__module__"]
            found += entry.values()
        elif isinstance(entry, list):
            found += entry


def _imports(name: str, path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name}: it is not valid Python: {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def _xgboost_version(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - _TAIL_BYTES))
        tail = stream.read()
    found = _XGBOOST_JSON.search(tail) or _XGBOOST_UBJ.search(tail)
    if found is None:
        return ""
    is_text = found.re is _XGBOOST_JSON
    return ".".join(part.decode() if is_text else str(part[0]) for part in found.groups())


def _first_installed(packages: Sequence[str]) -> str:
    return next((package for package in packages if _version(package)), packages[0])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
