"""Try an artifact before it is published. A backend in a separate process loads it and scores its samples."""

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.artifacts.manifest import MANIFEST_NAME, Manifest
from gateway.deploy.target import DeployError, StepSummary
from gateway.verify.conformance_check_type import CheckResult, run_check
from gateway.verify.run import (
    ArtifactManifestSubset,
    BackendNotReady,
    parse_manifest_or_samples,
    prepare_context,
    select_checks,
    started_backend,
)

_READY_WITHIN_S: Final = 120.0
_CHECKS: Final = ("predict/answer", "predict/samples", "rows")
_LINES: Final = 8
_BODY_BYTES: Final = 31 * 1024 * 1024
_EX_DATAERR: Final = 65


class ArtifactRejected(DeployError):
    """The artifact failed to load or to reproduce its samples."""


def try_unpublished_artifact(
    manifest: Manifest,
    files: Sequence[tuple[str, Path]],
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    folder: Path | None = None,
) -> StepSummary:
    """Run a backend on the artifact and score its samples; return a summary.

    Starts `command` in `folder` on a copy of the artifact. `environ` is the environment without settings of CHIPS. Raises
    ArtifactRejected where it does not get ready, or answers wrongly.
    """
    with staged_artifact(manifest, files) as artifact:
        own = {
            "CHIPS_MODEL": manifest.model,
            "CHIPS_VERSION": manifest.version,
            "CHIPS_ARTIFACT": str(artifact),
            "CHIPS_CACHE_DIR": str(artifact.parent / "cache"),
            "CHIPS_CONCURRENCY": "1",
            "CHIPS_MAX_BODY_BYTES": str(_BODY_BYTES),
        }
        results = asyncio.run(
            _scored(
                shlex.join(command),
                {**environ, **own},
                folder or artifact.parent,
                parse_manifest_or_samples(manifest.encode(), MANIFEST_NAME),
            )
        )
    failed = [result for result in results if result.outcome == "failed"]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ArtifactRejected(
            f"{failed[0].check.name}: {failed[0].why}{more}", hint=_HINTS[failed[0].check.group], code=76
        )
    passed = sum(result.outcome == "passed" for result in results)
    samples = len(manifest.samples)
    if not samples:
        return f"it loads; {passed} checks passed, but without samples nobody knows what it must answer"
    return f"it loads, and {samples} sample{'s' * (samples != 1)} came out as published ({passed} checks)"


_HINTS: Final[Mapping[str, str]] = {
    "predict": "make the samples with the model and packages that are published, or correct the signature",
    "rows": 'the answer for a row must not depend on others; where it does on purpose, say rows = "together"',
}


async def _scored(
    command: str, environ: Mapping[str, str], folder: Path, manifest: ArtifactManifestSubset
) -> list[CheckResult]:
    try:
        async with started_backend(command, environ, folder) as (url, process):
            try:
                bench = await prepare_context(url, manifest=manifest, process=process, wait_s=_READY_WITHIN_S)
            except BackendNotReady:
                if process.exit_code is None:
                    raise
                said = (
                    failure_reason([*process.lines, *process.errors]) or f"it ended with {process.exit_code}"
                )
                raise ArtifactRejected(
                    said.replace(environ["CHIPS_ARTIFACT"], "the artifact"),
                    code=_EX_DATAERR,
                ) from None
            return [await run_check(check, bench) for check in select_checks(_CHECKS)]
    except BackendNotReady as error:
        raise ArtifactRejected(str(error), hint=error.hint, code=_EX_DATAERR) from None


def failure_reason(lines: Sequence[str]) -> str:
    """Why a backend failed, from the lines of its log. It is the last error in plain text, else the last lines."""
    texts = []
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            texts.append(line)
            continue
        if not isinstance(entry, dict):
            continue
        message = str(entry.get("message", ""))
        if entry.get("severity") in {"ERROR", "CRITICAL", "ALERT", "EMERGENCY"} and message:
            return message.removeprefix("cannot start: ")
        texts.append(message)
    return "\n".join(text for text in reversed(texts[:_LINES]) if text.strip())


@contextlib.contextmanager
def staged_artifact(manifest: Manifest, files: Sequence[tuple[str, Path]]) -> Iterator[Path]:
    """The artifact in a temporary folder, as it will be published. The folder is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="chips-try-") as place:
        staged = Path(place) / "artifact"
        for name, source in files:
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, target)
        (staged / MANIFEST_NAME).write_bytes(manifest.encode())
        yield staged
