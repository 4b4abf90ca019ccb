"""A large body costs a bounded multiple of its size in memory."""

import re
from pathlib import Path

import pytest
import requests

from tests.contract.backends.julia.conftest import Start
from tests.contract.backends.linear import publish
from tests.contract.backends.process import TIMEOUT_S, Backend
from tests.patience import patience
from tests.probes import children

pytestmark = pytest.mark.timeout(600)  # a Julia compiles its program at each start

BODY_BYTES = 24 << 20
MOST_TIMES = 14  # the text twice, the columns, the predictions, the answer while it grows; and what the collector leaves until later


def peak_bytes(backend: Backend) -> int:
    """The most memory that Julia held so far: bin/serve is a shell, and Julia its child."""
    (child,) = children(backend.pid)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def ask(backend: Backend, row: str, last: str) -> requests.Response:
    rows = [row] * (BODY_BYTES // (len(row) + 1))
    body = f'{{"instances":[{",".join([*rows, last])}]}}'
    headers = {"Content-Type": "application/json"}
    return requests.post(
        f"{backend.url}/predict", body.encode(), headers=headers, timeout=patience(TIMEOUT_S)
    )


def test_memory_is_bounded_by_the_size_of_the_body(start_julia: Start, linear_jls: Path, tmp_path: Path):
    publish(str(tmp_path / "store"), linear_jls)
    environ = {"CHIPS_ARTIFACT": str(tmp_path / "store/linear/1"), "CHIPS_CONCURRENCY": "1"}
    backend = start_julia(environ).ready()
    before = peak_bytes(backend)
    for row in ("[1.5,2,3]", '{"x":0.1234567890123456,"n":2,"k":3}'):
        answer = ask(backend, row, "[1,1,1]")
        assert answer.json()["predictions"][-1] == 6.0
        refused = ask(backend, row, '[1,"two",3]')
        assert refused.status_code == 422
        assert "[1]: expected an integer" in refused.json()["detail"]
    grown = peak_bytes(backend) - before
    assert grown < MOST_TIMES * BODY_BYTES, f"{grown / BODY_BYTES:.1f} times the body"
    assert backend.stop() == 0
