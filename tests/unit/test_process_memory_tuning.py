"""Memory of bodies is kept, and a full garbage collection leaves out what the start has made."""

import platform
import subprocess
import sys

import pytest

_KEPT = """
import resource
from gateway.process_memory_tuning import keep_large_buffers
assert keep_large_buffers()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        pieces = [bytearray(256 * 1024) for _ in range(4)]
        del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""
_FROZEN = """
import gc
from gateway.process_memory_tuning import freeze_objects
before = len(gc.get_objects())
freeze_objects()
assert before > 1000
print(len(gc.get_objects()))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_buffers_are_used_again_without_a_page_fault():
    assert int(_run(_KEPT)) < 200


def test_what_a_start_has_made_is_left_out_of_collections():
    assert int(_run(_FROZEN)) < 1000


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout
