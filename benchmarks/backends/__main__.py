"""The backends of all languages measured alike: how they start, and what they add to a prediction.

    python -m benchmarks.backends [--seconds 2] [--times 3] [--docs docs/performance.md]

Prints the tables, writes benchmarks/results/backends.json, and, with --docs, puts the tables between that page's markers.
Under four minutes. A language whose toolchain is not here is left out; JULIA may name a Julia.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.backends import scoring, start
from benchmarks.backends.languages import Language, languages
from benchmarks.backends.page import rewrite
from benchmarks.machine import describe
from tests.contract.backends.linear import publish
from tests.contract.backends.process import ROOT

BALLAST_MIB = 64
NAME = "benchmarks.backends"  # of its place in the page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure of scoring")
    parser.add_argument("--times", type=int, default=3, help="starts of each kind; the median counts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/backends.json")
    parser.add_argument("--docs", type=Path, help="the page whose tables are written anew")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {name: value for name, value in describe().items() if name != "versions"},
        "artifact_mib": BALLAST_MIB,
        "versions": {},
        "start": [],
        "scoring": [],
    }
    with tempfile.TemporaryDirectory() as place, cloud_storage() as (url, bucket):
        for language in languages(Path(place)):
            print(f"measuring {language.name} {language.version} …", file=sys.stderr)
            document["versions"][language.name] = language.version
            measure(language, Path(place) / language.name, url, bucket, arguments, document)
    text = tables(document)
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.docs is not None:
        rewrite(arguments.docs, NAME, text)


def measure(
    language: Language,
    folder: Path,
    url: str,
    bucket: str,
    arguments: argparse.Namespace,
    into: dict[str, Any],
) -> None:
    small, large = folder / "small", folder / "large"
    small.mkdir(parents=True)
    publish(str(small / "store"), language.model)
    large.mkdir()
    (large / language.model.name).write_bytes(language.model.read_bytes())
    (large / "ballast.bin").write_bytes(os.urandom(BALLAST_MIB << 20))
    publish(f"gs://{bucket}/{language.name}", large, STORAGE_EMULATOR_HOST=url)
    address = f"gs://{bucket}/{language.name}/linear/1/"
    into["start"] += start.measure(language, address, times=arguments.times, STORAGE_EMULATOR_HOST=url)
    into["scoring"] += scoring.measure(language, small / "store/linear/1", seconds=arguments.seconds)


@contextmanager
def cloud_storage() -> Iterator[tuple[str, str]]:
    """A stand-in for Cloud Storage on this machine, and a bucket."""
    bucket = f"bench-{uuid4().hex[:8]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gcs", "--bucket", bucket], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().removeprefix("listening on ").strip(), bucket
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def tables(document: dict[str, Any]) -> str:
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"{document['date'][:10]}, {machine['cpus']} CPUs ({machine['cpu']}), {machine['system']}; {versions}.",
        "",
        "| start | cache | live s | fetched s | ready s | memory MB |",
        "|---|---|--:|--:|--:|--:|",
        *(
            f"| {s['language']} | {s['cache']} | {s['live_s']:.2f} | {s['fetched_s']:.2f} | {s['ready_s']:.2f} | {s['rss_mb']:.0f} |"
            for s in document["start"]
        ),
        "",
        "| scoring | rows | model alone ms | by HTTP ms (p50) | p99 | added ms |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {s['language']} | {s['rows']} | {s['direct_ms']:.3f} | {s['http_ms']:.2f} | {s['http_p99_ms']:.2f} | {s['overhead_ms']:.2f} |"
            for s in document["scoring"]
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
