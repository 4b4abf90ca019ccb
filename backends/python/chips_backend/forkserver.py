"""The fork server of prediction processes: it loads the model once, and they share its memory."""

import gc
import multiprocessing
import os
import sys
import tempfile
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final

import msgspec

from chips_backend.manifest import Manifest

_WHAT: Final = "_CHIPS_BACKEND_FORKSERVER"  # in the environment: the file that says which model to load
_THREADS: Final = Path("/proc/self/task")


class _Asked(msgspec.Struct, frozen=True):
    folder: str
    manifest: Manifest


_loaded: tuple[_Asked, Any] | None = None  # what was asked for, and what `pool.load_safely` made of it


def prepare(folder: Path, manifest: Manifest, slots: int) -> BaseContext:
    """A multiprocessing context for `slots` processes that find this model loaded, where that is possible."""
    if slots == 1 or sys.platform != "linux":  # elsewhere a system's own libraries start threads
        return multiprocessing.get_context("spawn")
    handle, name = tempfile.mkstemp(prefix="chips-forkserver-")
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(_Asked(str(folder), manifest)))
    os.environ[_WHAT] = name
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chips_backend.forkserver_preload"])
    return context


def load_once() -> None:
    """In the fork server: load what `prepare` asked for."""
    global _loaded  # noqa: PLW0603  (a process has one model)
    from chips_backend.prediction_pool import load_safely

    path = Path(os.environ.pop(_WHAT, ""))
    try:
        asked = msgspec.json.decode(path.read_bytes(), type=_Asked)
        path.unlink()
    except (OSError, msgspec.DecodeError):
        return  # a second fork server, since the first one has ended: each process loads by itself
    loaded = load_safely(Path(asked.folder), asked.manifest)
    if len(list(_THREADS.iterdir())) > 1:
        del loaded
        gc.collect()
        return
    _loaded = (asked, loaded)
    gc.collect()
    gc.freeze()  # the collector writes to what it looks at, and each page that a process writes to becomes its own


def found(folder: Path, manifest: Manifest) -> Any:
    """The model that the template process loaded; None where this process was not forked from one."""
    return _loaded[1] if _loaded is not None and _loaded[0] == _Asked(str(folder), manifest) else None
