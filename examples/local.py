"""What the examples need of this machine: a free port, and a file for a person's shell."""

import contextlib
import shlex
import socket
import sys
from collections.abc import Mapping
from pathlib import Path


def free_port(wanted: int = 0) -> int:
    """`wanted`, or another free port where that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise OSError("no port of this machine is free")


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """Write `path`, which a shell reads by `. FILE`: `variables`, and `chips` and `python` on the PATH.

    Its owner alone can read it, since it holds keys.
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
