"""How much memory four slots take for a forest of 500 MB: in threads, and in processes that are forked after it was loaded.

    python -m benchmarks.backends.shared_memory [--slots 4] [--mb 500]

The figures are the proportional set sizes of the backend's whole process tree after each slot has predicted, in MB: what several
processes share is counted once. One slot in a process is what is compared with.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from chips_backend.testing import Backend, running, write_artifact

from benchmarks import machine

_IN_PROCESSES = "from chips_backend import predict; predict.RUNS_IN = 'process'; from chips_backend.__main__ import run; run()"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--mb", type=int, default=500, help="the size of the model's file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chips-forest-") as folder:
        artifact, size = forest(Path(folder), arguments.mb << 20)
        found = {
            f"{slots} in {kind}": measured(artifact, kind, slots)
            for kind, slots in (
                ("processes", 1),
                ("processes", arguments.slots),
                ("threads", arguments.slots),
            )
        }
    print(json.dumps({"model_mb": round(size / 2**20), **found}, indent=1))


def forest(folder: Path, size: int) -> tuple[Path, int]:
    """A forest of at least `size` bytes: one deep tree, many times over."""
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(7)
    table = random.normal(size=(60_000, 8))
    model = RandomForestRegressor(1, random_state=7).fit(table, random.normal(size=len(table)))
    path = folder / "model.joblib"
    joblib.dump(model, path)
    (tree,) = model.estimators_
    count = size // path.stat().st_size + 1
    model.estimators_ = [copy.deepcopy(tree) for _ in range(count)]
    model.n_estimators = count
    joblib.dump(model, path)
    inputs = [{"name": f"x{at}", "datatype": "FP64"} for at in range(8)]
    content = path.read_bytes()
    path.unlink()
    write_artifact(folder / "artifact", {path.name: content}, signature={"inputs": inputs})
    return folder / "artifact", len(content)


def measured(artifact: Path, kind: str, slots: int) -> dict[str, float]:
    command = (
        (sys.executable, "-c", _IN_PROCESSES)
        if kind == "processes"
        else (sys.executable, "-m", "chips_backend")
    )
    began = time.perf_counter()
    environ = {"CHIPS_ARTIFACT": str(artifact), "CHIPS_CONCURRENCY": str(slots)}
    with running(environ, command=command) as backend:
        ready_s = time.perf_counter() - began
        ask(backend, 4 * slots)
        pids = machine.tree(backend.process.pid)
        return {
            "pss_mb": round(machine.pss_mb(pids)),
            "rss_mb": round(machine.rss_mb(pids)),
            "ready_s": round(ready_s, 1),
        }


def ask(backend: Backend, times: int) -> None:
    for number in range(times):
        answer = backend.post("/predict", {"instances": [[float(number)] * 8] * 100})
        if answer.status != 200:
            raise RuntimeError(answer.body[:300])


if __name__ == "__main__":
    main()
