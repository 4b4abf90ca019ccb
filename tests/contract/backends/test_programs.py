"""Checks of a process that the kit starts: each fires where the program breaks its sentence."""

import asyncio
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from gateway.verify import changed_second_instance
from gateway.verify.backend_process import BackendProcess
from gateway.verify.checks import process_lifecycle
from gateway.verify.conformance_check_type import CheckResult
from gateway.verify.run import (
    CHECKS,
    BackendNotReady,
    prepare_context,
    read_samples,
    select_checks,
    started_backend,
    verify,
)
from tests.conftest import require
from tests.contract.backends.broken import SAMPLES
from tests.patience import patience

# No test takes so long, but a dozen wait in vain: a file with a long limit is begun early.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[3]
COMMAND = shlex.join([sys.executable, "-m", "tests.contract.backends.program"])

BROKEN = {
    "logs/json-lines": ["log-text", "log-severity"],
    "logs/request": ["log-text", "log-none", "log-fields", "log-model", "log-http", "log-caller"],
    "logs/traceparent": ["log-trace", "log-span", "log-sampled"],
    "logs/cloud-trace": ["log-cloud-trace"],
    "logs/no-payload": ["log-payload"],
    "life/never-early": ["early"],
    "life/unknown-setting": ["unknown-setting", "code-1", "silent"],
    "life/bad-setting": ["bad-setting", "code-1", "silent"],
    "life/missing-setting": ["missing-setting", "code-1"],
    "fetch/progress": ["fetch-silent", "fetch-chatty"],
    "fetch/recovers": ["fetch-half", "fetch-again"],
    "life/artifact-digest": ["digest-unknown", "digest-ignored", "digest-nameless"],
    "life/process-1": ["stop-code", "stop-never", "process-1"],
    "life/corrupt-file": ["corrupt-file", "artifact-code", "nameless"],
    "life/missing-file": ["missing-file", "artifact-code"],
    "life/wrong-sample": ["wrong-sample", "artifact-code"],
    "life/vertex": ["no-vertex", "no-vertex-routes"],
    "life/two-at-once": ["alone"],
    "life/stop": ["stop-code", "stop-never", "stop-cuts"],
}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"a model")
    file = {"path": "model.bin", "bytes": 7, "sha256": hashlib.sha256(b"a model").hexdigest()}
    manifest = {"schema": 1, "model": "wine", "version": "1", "files": [file], "samples": SAMPLES}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def wait_at_most(monkeypatch: pytest.MonkeyPatch, start_s: float, stop_s: float, log_s: float) -> None:
    monkeypatch.setattr(process_lifecycle, "START_S", start_s)
    monkeypatch.setattr(changed_second_instance, "START_S", start_s)
    monkeypatch.setattr(process_lifecycle, "_STOP_S", stop_s)
    monkeypatch.setattr("gateway.verify.checks.backend_logs._PATIENCE_S", log_s)


async def run(artifact: Path, names: list[str], broken: str = "") -> list[CheckResult]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")},
        "PYTHONPATH": str(ROOT),
        "BREAK": broken,
        "CHIPS_MODEL": "wine",
        "CHIPS_VERSION": "1",
        "CHIPS_ARTIFACT": str(artifact),
        "CHIPS_CACHE_DIR": str(artifact.parent / "cache"),
    }
    manifest = read_samples(artifact / "manifest.json")
    async with started_backend(COMMAND, environment) as (url, process):
        report = await verify(
            url, manifest=manifest, process=process, checks=select_checks(names), wait_s=patience(30)
        )
    return list(report.results)


async def test_a_program_that_keeps_the_contract_passes_every_check(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
):
    wait_at_most(monkeypatch, start_s=patience(10), stop_s=patience(10), log_s=patience(10))
    results = await run(artifact, ["logs", "fetch", "life", "size", "about"])
    assert [
        (r.check.name, r.outcome, r.why) for r in results if r.outcome != "passed" and not r.machine_refused
    ] == []
    assert {r.check.name for r in results} >= set(BROKEN)


@pytest.mark.parametrize(
    ("name", "broken"), [(name, broken) for name, ways in BROKEN.items() for broken in ways], ids=str
)
async def test_a_check_fires_where_its_sentence_is_broken(
    artifact: Path, name: str, broken: str, monkeypatch: pytest.MonkeyPatch
):
    wait_at_most(monkeypatch, start_s=patience(1), stop_s=patience(1), log_s=1)  # most wait in vain
    (result,) = await run(artifact, [name], broken)
    require("unshare", available=not result.machine_refused, why=result.why)
    assert result.outcome == "failed", result
    assert result.why


def test_every_check_of_a_process_is_shown_to_fire():
    assert set(BROKEN) == {check.name for check in CHECKS if check.group in {"logs", "fetch", "life"}}


async def test_a_machine_that_refuses_process_1_is_no_fault_of_the_program(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no unshare
    (result,) = await run(artifact, ["life/process-1"])
    assert (result.outcome, result.machine_refused) == ("skipped", True)
    assert "unshare" in result.why


async def test_a_program_that_ends_at_once_is_told_with_its_last_words(artifact: Path):
    (artifact / "model.bin").write_bytes(b"another model")
    with pytest.raises(
        BackendNotReady, match=r"ended with 66 before it was ready:\n.*model\.bin has another digest"
    ):
        await run(artifact, ["about"])


async def test_the_last_words_are_waited_for():
    """The end of a process is known before the last of what it wrote is read."""
    words = "(sleep 0.5; echo 'there is no model' >&2) & exit 3"
    process = BackendProcess(shlex.join(["sh", "-c", words]), {"PATH": os.environ["PATH"]})
    await process.spawn()
    try:
        while process.exit_code is None:
            await asyncio.sleep(0.01)
        with pytest.raises(BackendNotReady, match=r"ended with 3 before it was ready:\nthere is no model"):
            await prepare_context("http://127.0.0.1:1", process=process, wait_s=patience(30))
    finally:
        await process.stop()


async def test_a_program_that_is_none_is_told():
    with pytest.raises(BackendNotReady, match="cannot be started"):
        async with started_backend("/no/such/program", {}):
            pass
