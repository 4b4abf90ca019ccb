"""Workers are forked: what they draw must differ all the same, or two requests would have one id."""

import random
import subprocess
import sys
from pathlib import Path

from gateway.core.trace_context import new_trace_id

# In a process of its own, since one with threads, as that of the tests, must not fork (Python 3.12 warns of it).
FORKS = """
import os
from gateway.core.trace_context import new_span_id, new_trace_id

for _ in range(3):
    if not (child := os.fork()):
        os.write(1, f"{new_trace_id()} {new_span_id()} ".encode())
        os._exit(0)
    os.waitpid(child, 0)
os.write(1, f"{new_trace_id()} {new_span_id()}".encode())
"""


def test_forked_workers_make_ids_of_their_own():
    root = Path(__file__).resolve().parents[3]
    made = subprocess.run(
        [sys.executable, "-c", FORKS], cwd=root, stdout=subprocess.PIPE, check=True
    ).stdout.split()
    assert len(made) == len(set(made)) == 8


def test_nobody_else_can_seed_it():
    random.seed(1)
    first = new_trace_id()
    random.seed(1)
    assert new_trace_id() != first
