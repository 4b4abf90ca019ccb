"""The R backend next to what people use instead, plumber with jsonlite: the same `lm` and `ranger`, the same rows, answers checked.

    python -m benchmarks.backends.r_alternatives [--seconds 2] [--rounds 1] [--out benchmarks/results] [--docs docs/performance.md]

Each server runs alone on one CPU with one prediction at a time, wrk on another with eight callers. The figure of record is CPU time
per request of the server's process tree.
"""

import argparse
import json
import math
import os
import random
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import bench, machine
from benchmarks.backends.alternatives import Way, ask_once, load
from benchmarks.backends.page import rewrite
from benchmarks.backends.served_models import Asked, ask_in_binary
from benchmarks.processes import pinned, stop
from tests.contract.backends.process import ROOT, R

HERE: Final = Path(__file__).parent
PORT: Final = 18480
ROWS: Final = (1, 100, 1000)
CALLERS: Final = 8
NAMES: Final = [f"x{at}" for at in range(1, 9)]
NAME: Final = "benchmarks.backends.r"  # of the tables in the page
_FORMS: Final = {"v1": "JSON rows", "v2": "v2 JSON", "binary": "v2 binary"}
_START_S: Final = 120.0


class Server(NamedTuple):
    name: str
    title: str
    forms: tuple[str, ...]


SERVERS: Final = (
    Server("chips", "ours", ("v1", "v2", "binary")),
    Server("pure", "ours without its compiled part", ("v1", "v2")),
    Server("plumber", "plumber, jsonlite", ("v1",)),
)
MODELS: Final = {
    "lm": "a linear model (`lm`) on 8 numbers",
    "ranger": "a forest of 50 trees (`ranger`) on 8 numbers",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=2, help="for each figure")
    parser.add_argument("--rounds", type=int, default=1, help="interleaved; the median counts")
    parser.add_argument("--out", type=Path, help="the folder for r.json")
    parser.add_argument("--docs", type=Path, help="the page whose tables are written anew")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {**machine.describe(), "load": os.getloadavg()},
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "figures": [],
    }
    with tempfile.TemporaryDirectory(prefix="chips-r-") as name:
        folder = Path(name)
        wanted = make(folder)
        for _ in range(arguments.rounds):
            for model in MODELS:
                for server in SERVERS:
                    document["figures"] += measure(server, model, folder, wanted[model], arguments.seconds)
    if arguments.out is not None:
        (arguments.out / "r.json").write_text(json.dumps(document, indent=1) + "\n")
    text = tables(document)
    print(text)
    if arguments.docs is not None:
        rewrite(arguments.docs, NAME, text)


def rows(count: int) -> list[list[float]]:
    """Numbers with six digits, as measurements have them."""
    drawn = random.Random(20)
    return [[round(drawn.gauss(0, 1), 6) for _ in NAMES] for _ in range(count)]


def make(folder: Path) -> dict[str, list[float]]:
    """Publish the models to `folder`; what each itself predicts for the rows."""
    listed = [dict(zip(NAMES, row, strict=True)) for row in rows(max(ROWS))]
    (folder / "rows.json").write_text(json.dumps(listed))
    subprocess.run(
        ["Rscript", "--vanilla", str(HERE / "r_models.R"), str(ROOT / "backends/r"), str(folder)],
        check=True,
        capture_output=True,
    )
    return {model: json.loads((folder / f"{model}.json").read_text()) for model in MODELS}


def ask(form: str, count: int) -> Asked:
    listed, fields = rows(count), {"Content-Type": "application/json"}
    if form == "v1":
        content = {"instances": [dict(zip(NAMES, row, strict=True)) for row in listed]}
        return Asked(json.dumps(content).encode(), fields, [])
    flat = [value for row in listed for value in row]
    tensor: dict[str, Any] = {"name": "predict", "shape": [count, len(NAMES)], "datatype": "FP64"}
    if form == "v2":
        return Asked(json.dumps({"inputs": [{**tensor, "data": flat}]}).encode(), fields, [])
    behind = struct.pack(f"<{len(flat)}d", *flat)
    tensor["parameters"] = {"binary_data_size": len(behind)}
    return ask_in_binary([tensor], behind, [])


def measure(
    server: Server, model: str, folder: Path, wanted: list[float], seconds: int
) -> Iterator[dict[str, Any]]:
    with _running(server, model, folder) as process:
        for form in server.forms:
            way = Way(form, "/predict" if form == "v1" else f"/v2/models/{model}/infer")
            for count in ROWS:
                asked = ask(form, count)
                _await(process, way, asked, wanted[:count])
                found = load(way, asked, CALLERS, seconds, process, PORT)
                yield {"server": server.name, "model": model, "form": form, "rows": count, **found}


@contextmanager
def _running(server: Server, model: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "PORT": str(PORT),
        "CHIPS_ARTIFACT": str(folder / "store" / model / "1"),
        "CHIPS_CACHE_DIR": str(folder / "cache"),
        "CHIPS_CONCURRENCY": "1",
        "CHIPS_COMPILED": "off" if server.name == "pure" else "auto",
    }
    plumber = ("Rscript", "--vanilla", str(HERE / "peers/plumber.R"), str(folder / f"{model}.rds"), str(PORT))
    command = list(plumber if server.name == "plumber" else R)
    process = pinned(
        bench.PROXY_CPU, command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        stop(process)


def _await(process: subprocess.Popen[bytes], way: Way, asked: Asked, wanted: list[float]) -> None:
    """Ask until it answers, and hold the answer against the model's own. Raises RuntimeError."""
    end = time.monotonic() + _START_S
    while True:
        try:
            status, content, length, _ = ask_once(way, asked, PORT)
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{way.path} does not answer") from None
            time.sleep(0.05)
            continue
        break
    if status != 200:
        raise RuntimeError(f"{way}: {status} {content[:300]!r}")
    found = _predictions(content, length)
    close = len(found) == len(wanted) and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(found, wanted, strict=True)
    )
    if not close:
        raise RuntimeError(f"{way}: another answer than the model's own: {content[:200]!r}")


def _predictions(content: bytes, length: str | None) -> list[float]:
    if length is not None:
        behind = content[int(length) :]
        return list(struct.unpack(f"<{len(behind) // 8}d", behind))
    document = json.loads(content)
    found: list[float] = (
        document["predictions"] if "predictions" in document else document["outputs"][0]["data"]
    )
    return found


def tables(document: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    of = document["machine"]
    about = (
        f"{document['date'][:10]}, {of['cpus']} CPUs ({of['cpu']}), {of['system']}, load {of['load'][0]:.1f} when it began; "
        f"{document['rounds']} rounds of {document['seconds']} s for each figure."
    )
    parts = [about]
    for model, title in MODELS.items():
        parts += [f"CPU µs per request, {CALLERS} callers, {title}:", _table(document["figures"], model)]
    return "\n\n".join(parts)


def _table(figures: list[dict[str, Any]], model: str) -> str:
    def median(server: str, form: str, count: int) -> float:
        where = (server, model, form, count)
        found = [
            one["cpu_us"]
            for one in figures
            if (one["server"], one["model"], one["form"], one["rows"]) == where and one["served"]
        ]
        return statistics.median(found) if found else math.nan

    lines = [
        "| | " + " | ".join(f"{n} row{'s' * (n > 1)}" for n in ROWS) + " |",
        "|---|" + "--:|" * len(ROWS),
    ]
    for server in SERVERS:
        for form in server.forms:
            cells = []
            for count in ROWS:
                cost = median(server.name, form, count)
                ratio = cost / median("plumber", "v1", count)
                own = f"{cost:.0f}" if server.name == "plumber" else f"**{cost:.0f}** ({ratio:.2f})"
                cells.append("–" if math.isnan(cost) else own)
            lines.append(f"| {server.title}, {_FORMS[form]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
