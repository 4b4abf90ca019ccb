"""What the start of a command costs: `python -m benchmarks.commands`. CPU seconds, user and system, medians of five.

Each command runs in a process of its own, on an empty registry. The aim is 0.25 s; `-X importtime` says where the rest goes.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 5
AIM_S = 0.25
COMMANDS = (
    "-V",
    "models",
    "keys list",
    "networks list",
    "history",
    "export",
    "check",
    "ps",
    "tail --no-follow --last 1",
)


def cpu_s(arguments: list[str], environ: dict[str, str]) -> float:
    """CPU seconds of one run, of the process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")},
            "CHIPS_REGISTRY": f"sqlite:{folder}/registry.db",
            "CHIPS_TRACE__STORE": f"{folder}/requests.db",
            "HOME": folder,
        }
        print(f"{'command':<28} CPU s   (aim {AIM_S})")
        for command in COMMANDS:
            cpu_s(command.split(), environ)  # bytecode and the registry are there from now on
            seconds = statistics.median(cpu_s(command.split(), environ) for _ in range(ROUNDS))
            print(f"chips {command:<22} {seconds:.2f}{'   over' if seconds > AIM_S else ''}")


if __name__ == "__main__":
    main()
