"""Workers that all end with a fatal code at once: the supervisor ends too, with that code."""

import subprocess
import sys

from tests.patience import patience

SUPERVISE = """
import sys
from gateway.reuseport_workers import WorkerPool
sys.exit(WorkerPool(4, lambda number, folder, lifeline: 71, tell=lambda *_: None, grace_s=30, fatal=frozenset({71})).run())
"""


def test_workers_that_all_end_at_once_end_the_supervisor():
    done = subprocess.run([sys.executable, "-c", SUPERVISE], timeout=patience(30), check=False)
    assert done.returncode == 71
