"""Scan a pickle for what it would import, without running it.

It finds the classes and functions that the pickle refers to, and the package versions that it notes. joblib puts the
bytes of arrays between a pickle's instructions, so pickletools.genops cannot read its files. This follows the
instructions as `pickle` does, but puts a stand-in in the place of everything that a pickle would import: nothing is
imported, nothing is called.
"""

import bz2
import gzip
import io
import lzma
import math
import pickle
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

_ITEM_BYTES: Final[Mapping[str, int]] = {"b": 1, "?": 1, "B": 1}


class PickleScanResult:
    """What a scan of a pickle found: what the pickle would import, and the package versions that it notes.

    `imported_names` are (module, name) of each class or function.
    """

    def __init__(self) -> None:
        self.imported_names: set[tuple[str, str]] = set()
        self.package_versions: dict[str, str] = {}


def scan_pickle(path: Path) -> PickleScanResult:
    """Scan a pickle or joblib file without running it. It may be compressed. ValueError where it is none or is cut off."""
    contents = PickleScanResult()
    try:
        with _opened(path) as stream:
            _Reader(stream, contents).load()
    except (OSError, zlib.error, lzma.LZMAError, RecursionError, MemoryError) as error:
        raise ValueError(f"it cannot be read to its end: {error}") from None
    except Exception as error:  # noqa: BLE001  (bytes can be damaged in any way, and pickle checks few of them)
        raise ValueError(f"it cannot be followed as a pickle: {type(error).__name__}: {error}") from None
    return contents


class _StandIn:
    """In the place of a class, a function or what they would have made."""

    def __init__(self, what: str = "", arguments: tuple[Any, ...] = ()) -> None:
        self.what = what
        self.arguments = arguments
        self.state: Any = None

    def __call__(self, *arguments: Any, **_: Any) -> "_StandIn":
        return _StandIn(self.what, arguments)

    def __hash__(self) -> int:
        return id(self)

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...

    def add(self, _: Any) -> None: ...

    def update(self, *_: Any) -> None: ...

    def __setitem__(self, _key: Any, _value: Any) -> None: ...


_Unpickler: Any = pickle._Unpickler


class _Reader(_Unpickler):  # type: ignore[misc]
    """Follows a pickle's instructions with stand-ins."""

    dispatch = dict(_Unpickler.dispatch)  # noqa: RUF012

    def __init__(self, stream: IO[bytes], contents: PickleScanResult) -> None:
        super().__init__(stream)
        self.stack: list[Any]
        self._stream = stream
        self._contents = contents

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # written with the names of Python 2
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self._contents.imported_names.add((module, name))
        return _StandIn(f"{module}.{name}")

    def persistent_load(self, _: Any) -> Any:
        return _StandIn()

    def get_extension(self, _: int) -> None:
        self.append(_StandIn())

    def _instantiate(self, klass: Any, arguments: Any) -> None:
        self.append(_StandIn(getattr(klass, "what", ""), tuple(arguments)))

    def load_newobj(self) -> None:
        arguments, klass = self.stack.pop(), self.stack.pop()
        self.append(_StandIn(getattr(klass, "what", ""), arguments))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        made = self.stack[-1]
        self.stack[-1] = _StandIn(
            getattr(made, "what", ""), arguments if isinstance(arguments, tuple) else ()
        )

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _StandIn):
            return
        made.state = state
        self._note_version(made, state)
        if made.what.endswith(".NumpyArrayWrapper") and made.what.startswith("joblib."):
            self._skip_array(state)

    dispatch[pickle.BUILD[0]] = load_build

    def _note_version(self, made: _StandIn, state: Any) -> None:
        version = state.get("_sklearn_version") if isinstance(state, dict) else None
        if isinstance(version, str) and made.what.startswith("sklearn."):
            self._contents.package_versions.setdefault("scikit-learn", version)

    def _skip_array(self, state: Any) -> None:
        """joblib's numpy_pickle: the array's bytes follow, or a pickle of their own for an array of objects."""
        dtype = state["dtype"]
        code = dtype.arguments[0] if isinstance(dtype, _StandIn) and dtype.arguments else ""
        if code in {"O8", "O"} or _holds_objects(dtype):
            _Reader(self._stream, self._contents).load()
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            _skip(self._stream, self._stream.read(1)[0])
        _skip(self._stream, math.prod(state["shape"]) * _item_bytes(str(code)))


def _holds_objects(dtype: Any) -> bool:
    state = dtype.state if isinstance(dtype, _StandIn) else None
    flags = state[7] if isinstance(state, tuple) and len(state) > 7 else 0
    return isinstance(flags, int) and bool(flags & 1)  # NPY_ITEM_REFCOUNT


def _item_bytes(code: str) -> int:
    if code in _ITEM_BYTES:
        return _ITEM_BYTES[code]
    digits = code.lstrip("<>|=").lstrip("biufcSUVmMOa")
    if not digits.isdigit():
        raise ValueError(f"an array of the kind {code!r}")
    size = int(digits)
    return size * 4 if "U" in code[:2] else size


def _skip(stream: IO[bytes], count: int) -> None:
    while count:
        block = stream.read(min(count, 1 << 20))
        if not block:
            raise EOFError("it ends inside an array")
        count -= len(block)


class _Inflated(io.RawIOBase):
    """A zlib stream, as joblib's default compression writes it, as a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._inflate = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflate.eof:
            given = self._inflate.unconsumed_tail or self._file.read(1 << 16)
            content = self._inflate.decompress(given, len(buffer))
            if content or not given:
                buffer[: len(content)] = content
                return len(content)
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        head = stream.read(6)
    if head.startswith(b"\x1f\x8b"):
        return io.BufferedReader(gzip.GzipFile(path))
    if head.startswith(b"BZh"):
        return bz2.open(path)
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.open(path)
    if head.startswith(b"\x78"):
        return io.BufferedReader(_Inflated(path), 1 << 16)
    if head.startswith(b"\x04\x22\x4d\x18"):
        raise ValueError("it is compressed by LZ4")
    return path.open("rb")
