"""Tell whether another process on this machine still runs. It is known by an identity that it wrote down. Linux: proc(5)."""

import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_ENDED: Final = frozenset("ZXx")  # its state, though its parent has not looked yet


def current_process() -> str:
    """The identity of the current process, as one text.

    It has machine, process id and start time. Empty where the system does not say.
    """
    machine, started = _machine(), _started(os.getpid())
    return f"{machine}/{os.getpid()}/{started}" if machine and started else ""


def has_ended(process: str) -> bool:
    """Whether the process with this identity has ended. It ran on this machine. False where that cannot be known here."""
    machine, pid, started = ([*process.rsplit("/", 2), "", ""])[:3]
    if not machine or machine != _machine() or not (pid.isascii() and pid.isdecimal()):
        return False
    return _started(int(pid)) != started


def _machine() -> str:
    """Differs for each boot and each container."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process began, in ticks since the machine did; empty where none runs under that number."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *others = fields.rpartition(")")[2].split()
    return "" if state in _ENDED else others[18]
