"""Tune how this process keeps memory.

This concerns the C library's large buffers, and the objects of Python that stay for good.
"""

import ctypes
import gc
from typing import Final

# malloc.h of glibc. Both together: either alone ends glibc's own adjustment of the other, and is worse than none.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MMAP_THRESHOLD_BYTES: Final = 4 << 20
_TRIM_THRESHOLD_BYTES: Final = 64 << 20


def keep_large_buffers() -> bool:
    """Let the C library keep the memory of large buffers.

    Otherwise it returns that memory, and faults it in again for the next body. uvloop reads up to 256 KB at once, which
    lies above glibc's thresholds: in some starts each body of 1 MB costs some 90 page faults, in others none
    (docs/performance.md). Returns False where the C library has no `mallopt`: musl, macOS.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    kept = mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES) and mallopt(
        _M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES
    )
    return bool(kept)


def freeze_objects() -> None:
    """Exclude the objects that exist now from garbage collection.

    It runs after the start: they stay, and a collection would delay requests.
    """
    gc.freeze()
