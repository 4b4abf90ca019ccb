"""Train every kind and write down what the libraries themselves predict: `python main.py FOLDER`. It knows nothing of CHIPS."""

import re
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import others
import scikit


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    number = 0
    for group in (*scikit.GROUPS, *others.GROUPS):
        began = time.monotonic()
        before = number
        for specimen in group():
            slug = re.sub(r"[^a-z0-9]+", "-", specimen.kind.lower())[:40].strip("-")
            number += 1
            specimen.write(folder / f"k{number:03d}-{slug}")
        sys.stderr.write(f"{group.__name__}: {number - before} in {time.monotonic() - began:.1f} s\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
