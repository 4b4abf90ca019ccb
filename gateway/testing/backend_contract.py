"""A pytest suite that checks a backend against the contract.

A subclass runs it: the checks of `chips verify`, one test each.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.verify.backend_process import BackendProcess
from gateway.verify.conformance_check_type import Check
from gateway.verify.run import (
    CHECKS,
    ArtifactManifestSubset,
    VerificationReport,
    read_samples,
    started_backend,
    verify,
)


@dataclass(frozen=True, kw_only=True)
class BackendUnderTest:
    """The backend that the contract tests run against.

    It runs at `url`, or `command` starts it with `environment` (and PORT) in its environment.
    """

    url: str = ""
    command: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    samples: Path | None = None  # its manifest.json
    ready_within_s: float = 120.0
    # Names of checks that cannot apply, each with its reason; any other skip is a failure, unless this machine refuses
    # what the check needs.
    not_applicable: Mapping[str, str] = field(default_factory=dict)


class BackendContractTests:
    """A pytest suite that checks a backend against the contract.

    A subclass runs the checks of `chips verify`, one test each. They run once, in their order, before the first test
    reports.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def report(cls, backend: BackendUnderTest) -> VerificationReport:
        return asyncio.run(_verify(backend, CHECKS))

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    def test_contract(self, backend: BackendUnderTest, report: VerificationReport, check: Check) -> None:
        (result,) = (result for result in report.results if result.check is check)
        if result.outcome == "skipped":
            reason = backend.not_applicable.get(check.name) or (
                result.why if result.machine_refused else None
            )
            assert reason is not None, f"{check.name} was skipped: {result.why}"
            pytest.skip(reason)
        assert result.outcome == "passed", (
            f"the contract says: {check.contract}\nbut: {result.why}\n\nsent:\n{result.sent}\n\ncame:\n{result.response}"
        )


async def _verify(backend: BackendUnderTest, checks: Sequence[Check]) -> VerificationReport:
    manifest = read_samples(backend.samples) if backend.samples is not None else ArtifactManifestSubset()

    async def run(url: str, process: BackendProcess | None) -> VerificationReport:
        return await verify(
            url, manifest=manifest, process=process, checks=checks, wait_s=backend.ready_within_s
        )

    if not backend.command:
        return await run(backend.url, None)
    async with started_backend(backend.command, backend.environment) as (url, process):
        return await run(url, process)
