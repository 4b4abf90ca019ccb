"""The Python model called without a backend: FOLDER SECONDS ROWS... prints the median milliseconds for each number of rows."""

import json
import statistics
import sys
import time
from pathlib import Path

from chips_backend import predict
from chips_backend.decode_instances import read_instances
from chips_backend.manifest import parse_manifest


def main(folder: Path, seconds: float, counts: list[int]) -> None:
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    model = predict.load(folder, manifest)
    found = []
    for count in counts:
        rows = read_instances({"instances": [[1.5, 2, 3]] * count}, manifest.signature).rows
        for _ in range(20):
            predict.predict(model, rows, {})
        taken = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            predict.predict(model, rows, {})
            taken.append(time.perf_counter() - began)
        found.append(statistics.median(taken) * 1000)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), [int(count) for count in sys.argv[3:]])
