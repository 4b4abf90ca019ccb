"""The author's own code that a model refers to: found, and taken along as source.

A pickle holds the names of classes and functions, not their code. Those of installed packages are installed with a backend.
Modules of the author are copied next to the model; what a script or notebook defined itself is written to a module made of
its source and of what that source uses.
"""

import ast
import builtins
import hashlib
import importlib.util
import linecache
import pickle
import site
import symtable
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from chips_backend.example_columns import CannotSave

_SCRIPT: Final = "__main__"
_MOST_BYTES: Final = 4 << 20  # of source; more is a whole project, and belongs into a package
_WHAT_TO_DO: Final = "move it into a module next to the script, import it from there, and train again"


class OwnCode(NamedTuple):
    """What is taken along: source by its path in the artifact, and the module that replaces the script."""

    files: Mapping[str, str]
    script: str = ""  # the name of that module; empty where nothing comes from the script
    moved: Mapping[str, Any] = {}  # name -> class or function of the script
    modules: Sequence[str] = ()  # every module that the model refers to

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile, what the script defined says that it belongs to the module that replaces the script."""
        if not self.script:
            yield
            return
        module = types.ModuleType(self.script)
        vars(module).update(self.moved)
        sys.modules[self.script] = module
        for value in self.moved.values():
            value.__module__ = self.script
        try:
            yield
        finally:
            for value in self.moved.values():
                value.__module__ = _SCRIPT
            del sys.modules[self.script]


def own_code_of(model: Any) -> OwnCode:
    """The author's code that a pickle of `model` would refer to. Raises CannotSave where it cannot be taken along."""
    objects = _referred(model)
    modules = {str(getattr(each, "__module__", "") or "") for each in objects}
    script = _Script([each for each in objects if getattr(each, "__module__", None) == _SCRIPT])
    files = _files_of({*modules, *script.modules} - {_SCRIPT, ""})
    named = ""
    if script.parts:
        source = script.source()
        named = f"own_code_{hashlib.sha256(source.encode()).hexdigest()[:8]}"
        files[f"{named}.py"] = source
    if sum(map(len, files.values())) > _MOST_BYTES:
        raise CannotSave(
            f"the model uses {len(files)} modules of your own, more than {_MOST_BYTES >> 20} MiB of source: make them a package, "
            "install it, and name it in requirements.txt"
        )
    return OwnCode(files, named, script.moved, sorted(modules - {""}))


class _Nowhere:
    def write(self, content: Any) -> int:
        return len(content)


def _referred(model: Any) -> list[Any]:
    """The classes and functions that a pickle of the model names."""
    found: dict[int, Any] = {}

    class Finder(pickle.Pickler):
        def reducer_override(self, each: Any) -> Any:
            if isinstance(each, type | types.FunctionType):
                found[id(each)] = each
            return NotImplemented

    try:
        Finder(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(model)
    except Exception as error:
        raise CannotSave(
            f"the model cannot be pickled: {error}. A lambda or a function inside a function cannot; "
            "write it as a function of a module"
        ) from error
    return list(found.values())


# -- modules of the author


def is_own(module: str) -> bool:
    """Whether a module that is loaded is the author's: neither Python's nor of an installed package."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in {"chips_backend", _SCRIPT}:
        return False
    place = _place(module) or _place(top)
    return place is not None and not any(place.is_relative_to(folder) for folder in _installed())


def _installed() -> list[Path]:
    named = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [
        *(sysconfig.get_path(name) for name in named),
        *site.getsitepackages(),
        site.getusersitepackages(),
    ]
    return [Path(folder).resolve() for folder in folders]


def _place(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).resolve() if file else None


def _files_of(modules: set[str]) -> dict[str, str]:
    """The sources of those modules that are the author's, of the packages around them, and of what they import of the author's."""
    files: dict[str, str] = {}
    waiting, seen = sorted(modules), set(modules)
    while waiting:
        module = waiting.pop()
        if not is_own(module):
            continue
        place = _place(module)
        if place is None:  # a namespace package: its modules say where they are
            continue
        if place.suffix != ".py":
            raise CannotSave(
                f"the model uses your module {module}, which is compiled ({place.name}): make it a package, install it, "
                "and name it in requirements.txt"
            )
        source = place.read_text(encoding="utf-8")
        is_package = place.name == "__init__.py"
        files[module.replace(".", "/") + ("/__init__.py" if is_package else ".py")] = source
        parents = [module.rpartition(".")[0]] if "." in module else []
        for name in (*parents, *_imports(source, module if is_package else module.rpartition(".")[0])):
            if name not in seen and _is_loadable(name):
                seen.add(name)
                waiting.append(name)
    return files


def _is_loadable(module: str) -> bool:
    """Load what a function imports only when it is called, so that its place is known."""
    if module in sys.modules:
        return True
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or (top in sys.modules and not is_own(top)):
        return False
    try:
        return importlib.util.find_spec(module) is not None and _has_loaded(module)
    except (ImportError, ValueError, AttributeError):
        return False


def _has_loaded(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:  # noqa: BLE001  (somebody's code; the backend will say so, if it is needed)
        return False
    return True


def _imports(source: str, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{above}.{base}" if base else above
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


# -- what a script or notebook defined


class _Script:
    """The definitions of `__main__` that some objects need, with everything that these use, in the order of use."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self.parts: list[str] = []
        self.moved: dict[str, Any] = {}
        self.modules: set[str] = set()
        self._names = vars(sys.modules[_SCRIPT])
        self._seen: set[str] = set()
        for each in objects:
            self._take(each.__qualname__.partition(".")[0], each.__qualname__)

    def source(self) -> str:
        future = (
            "from __future__ import annotations\n\n" if _is_future(self._names.get("annotations")) else ""
        )
        return future + "\n".join(self.parts)

    def _take(self, name: str, user: str) -> None:
        if name in self._seen or (name not in self._names and hasattr(builtins, name)):
            return
        self._seen.add(name)
        if name not in self._names:
            raise CannotSave(f"{user} is not at the top of the script or notebook: {_WHAT_TO_DO}")
        value = self._names[name]
        if isinstance(value, types.ModuleType):
            self.modules.add(value.__name__)
            self.parts.append(f"import {value.__name__} as {name}\n")
        elif isinstance(value, type | types.FunctionType) and value.__module__ == _SCRIPT:
            source = _definition(name, value)
            for used in _globals_used(source):
                if used != name and used in self._names:
                    self._take(used, name)
            self.parts.append(f"\n{source}\n")
            self.moved[name] = value
        elif _is_importable(value):
            self.modules.add(value.__module__)
            self.parts.append(f"from {value.__module__} import {value.__qualname__} as {name}\n")
        elif _is_future(value):
            return
        else:
            self.parts.append(f"{name} = {_literal(name, value, user)}\n")


def _is_future(value: Any) -> bool:
    return type(value).__module__ == "__future__"


def _is_importable(value: Any) -> bool:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", ".")
    return isinstance(module, str) and getattr(sys.modules.get(module), str(name), None) is value


def _literal(name: str, value: Any, user: str) -> str:
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise CannotSave(
        f"{user} uses the variable {name} of the script or notebook, a {type(value).__name__} that cannot be written as source: "
        f"make it an argument of {user}, or move both into a module next to the script, and train again"
    )


def _definition(name: str, value: Any) -> str:
    """The source of a class or function at the top of a script or a cell, with its decorators."""
    for file in _source_files(value):
        text = "".join(linecache.getlines(file))
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        found = [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        ]
        if found:
            first = min([found[-1].lineno, *(each.lineno for each in found[-1].decorator_list)])
            return "\n".join(text.splitlines()[first - 1 : found[-1].end_lineno])
    raise CannotSave(
        f"the model uses {name} of this script or notebook, whose source is not to be found: {_WHAT_TO_DO}"
    )


def _source_files(value: Any) -> Iterator[str]:
    members = [value, *vars(value).values()] if isinstance(value, type) else [value]
    for each in members:
        code = getattr(getattr(each, "__func__", getattr(each, "fget", each)), "__code__", None)
        if code is not None and getattr(each, "__module__", _SCRIPT) == _SCRIPT:
            yield code.co_filename
    main = getattr(sys.modules[_SCRIPT], "__file__", None)
    if main:
        yield main


def _globals_used(source: str) -> list[str]:
    """The global names that a definition reads, where it is made and where it is called."""
    used: dict[str, None] = {}

    def look(table: symtable.SymbolTable) -> None:
        for symbol in table.get_symbols():
            is_top = table.get_type() == "module"
            if symbol.is_referenced() and (is_top or symbol.is_global()):
                used.setdefault(symbol.get_name())
        for inner in table.get_children():
            look(inner)

    look(symtable.symtable(source, _SCRIPT, "exec"))
    return list(used)
