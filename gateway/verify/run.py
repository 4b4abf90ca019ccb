"""Runs the conformance checks against a backend. It reports their results."""

import asyncio
import contextlib
import fnmatch
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.core.decode_text_file import decode_text_file
from gateway.core.model import Tensor
from gateway.free_ports import claim_free_port
from gateway.verify.backend_process import BackendProcess
from gateway.verify.checks import (
    artifact_download,
    backend_logs,
    batch_invariance,
    binary_tensors,
    declared_concurrency,
    headers,
    invalid_requests,
    metadata_and_health,
    open_inference_predictions,
    process_lifecycle,
    survives_malformed_http,
    valid_predict_requests,
)
from gateway.verify.conformance_check_type import JSON, Check, CheckContext, CheckResult, Sample, run_check
from gateway.verify.raw_http import Fields, NoCompleteResponse, RawClient, RawRequest, RawResponse

CHECKS: tuple[Check, ...] = (
    *metadata_and_health.CHECKS,
    *valid_predict_requests.CHECKS,
    *open_inference_predictions.CHECKS,
    *binary_tensors.CHECKS,
    *batch_invariance.CHECKS,
    *invalid_requests.CHECKS,
    *headers.CHECKS,
    *survives_malformed_http.CHECKS,
    *declared_concurrency.CHECKS,
    *backend_logs.CHECKS,
    *headers.LAST,
    *artifact_download.CHECKS,
    *process_lifecycle.CHECKS,
)

_POLL_S = 0.1
_LAST_WORDS_S = 5.0  # something that the process started may hold its output open for longer
_SMALL_BODY_BYTES = 1_000_000  # the limit of a process that the kit starts: 31 MiB are much to send twice


class BackendNotReady(Exception):
    """The backend did not become ready to be checked. The text says why, `hint` what to do."""

    def __init__(
        self, message: str, hint: str = "wait longer with --wait, and look at the backend's log"
    ) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class VerificationReport:
    """The report of one verification. It has the results of all checks, and the backend's model and version."""

    url: str
    model: str
    version: str
    results: Sequence[CheckResult]
    seconds: float

    def count(self, outcome: str) -> int:
        return sum(result.outcome == outcome for result in self.results)

    @property
    def failed(self) -> list[CheckResult]:
        return [result for result in self.results if result.outcome == "failed"]


class ArtifactManifestSubset(msgspec.Struct):
    """The part of an artifact manifest that the checks need. The checks need its samples and its rows policy."""

    model: str = ""
    version: str = ""
    samples: tuple[Sample, ...] = ()
    # "together" where the answer for a row depends on the others on purpose
    rows_policy: str = msgspec.field(name="rows", default="")


def read_samples(path: Path) -> ArtifactManifestSubset:
    """Read the samples in a file.

    The file is a manifest.json, or the samples.json that it was made from. ValueError says what is wrong.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return parse_manifest_or_samples(content, str(path))


def parse_manifest_or_samples(content: bytes, name_in_errors: str) -> ArtifactManifestSubset:
    """Parse a manifest or a list of samples, told apart by the content. Raises ValueError, which names the file."""
    try:
        text = decode_text_file(content)
    except ValueError as error:
        raise ValueError(f"{name_in_errors} {error}") from None
    try:
        if text.lstrip()[:1] == "[":
            return ArtifactManifestSubset(samples=msgspec.json.decode(text, type=tuple[Sample, ...]))
        return msgspec.json.decode(text, type=ArtifactManifestSubset)
    except ValueError as error:
        raise ValueError(f"{name_in_errors} is neither a manifest nor a list of samples: {error}") from None


def select_checks(patterns: Sequence[str], *, short: bool = False) -> list[Check]:
    """Select the checks whose names match one of `patterns` (as in fnmatch). The name of a group selects the whole group."""
    wanted = [check for check in CHECKS if check.short or not short]
    if not patterns:
        return wanted
    return [c for c in wanted if any(fnmatch.fnmatchcase(c.name, p) or c.group == p for p in patterns)]


async def verify(
    url: str,
    *,
    model: str = "",
    version: str = "",
    manifest: ArtifactManifestSubset | None = None,
    process: BackendProcess | None = None,
    fields: Fields = (),
    checks: Sequence[Check] = CHECKS,
    wait_s: float = 30.0,
    on_result: Callable[[CheckResult], None] = lambda _: None,
) -> VerificationReport:
    """Run `checks` against the backend at `url`. Raises BackendNotReady where it does not get ready within `wait_s`."""
    began = time.monotonic()
    context = await prepare_context(
        url, model=model, version=version, manifest=manifest, process=process, fields=fields, wait_s=wait_s
    )
    results = []
    for check in checks:
        result = await run_check(check, context)
        results.append(result)
        on_result(result)
    return VerificationReport(url, context.model, context.version, results, time.monotonic() - began)


async def prepare_context(
    url: str,
    *,
    model: str = "",
    version: str = "",
    manifest: ArtifactManifestSubset | None = None,
    process: BackendProcess | None = None,
    fields: Fields = (),
    wait_s: float = 30.0,
) -> CheckContext:
    """Prepare the context of the checks for one backend.

    It waits until the backend is ready, and reads what the checks need to know of it.
    """
    manifest = manifest or ArtifactManifestSubset()
    client = RawClient(url, fields=fields)
    early: list[tuple[int, int]] = []
    ready = await _wait_until_ready(client, process, wait_s, early)
    said_model, _, said_version = ready.get("X-Chips-Model").partition("@")
    context = CheckContext(
        client,
        model or manifest.model or said_model,
        version or manifest.version or said_version,
        samples=manifest.samples,
        process=process,
        early=early,
        rows_policy=manifest.rows_policy,
    )
    if process is not None:
        context.body_limit_bytes = int(
            process.environment.get("CHIPS_MAX_BODY_BYTES", context.body_limit_bytes)
        )
    if not context.model:
        raise BackendNotReady(
            "the backend does not say in X-Chips-Model which model it serves: give --model and --version"
        )
    await _learn(context)
    return context


async def _wait_until_ready(
    client: RawClient, process: BackendProcess | None, wait_s: float, early: list[tuple[int, int]]
) -> RawResponse:
    """Ask until it is ready. Of a process that has just been started, note what it predicts before that."""
    give_up_at = time.monotonic() + wait_s
    while True:
        try:
            predicted = (
                await client.request(RawRequest("POST", "/predict", JSON, b'{"instances": []}'))
                if process
                else None
            )
            response = await client.request(RawRequest("GET", "/v2/health/ready"))
            if predicted is not None:
                early.append((predicted.status, response.status))
            if response.status == 200:
                return response
            if response.status in {401, 403}:
                raise BackendNotReady(
                    f"GET /v2/health/ready answers {response.status}: the backend does not take our credentials",
                    hint="send others with --header; on Cloud Run the caller needs the role roles/run.invoker",
                )
            state = f"GET /v2/health/ready answers {response.status}"
        except NoCompleteResponse as error:
            state = str(error)
        if process is not None and process.exit_code is not None:
            await process.wait_for_exit(timeout_s=_LAST_WORDS_S)
            said = "\n".join([*process.lines, *process.errors])[-1000:]
            raise BackendNotReady(f"the process ended with {process.exit_code} before it was ready:\n{said}")
        if time.monotonic() >= give_up_at:
            raise BackendNotReady(f"the backend is not ready: {state}")
        await asyncio.sleep(_POLL_S)


async def _learn(context: CheckContext) -> None:
    try:
        metadata = (await context.client.request(RawRequest("GET", context.open_inference))).json()
        if isinstance(metadata, dict):
            context.metadata = metadata
            context.inputs = msgspec.convert(metadata.get("inputs") or (), tuple[Tensor, ...])
    except (NoCompleteResponse, ValueError):
        pass  # the checks of the metadata will tell
    if (
        not context.version
        and isinstance(context.metadata.get("versions"), list)
        and context.metadata["versions"]
    ):
        context.version = str(context.metadata["versions"][0])
    for candidate in await _candidates(context):
        try:
            response = await context.client.request(
                RawRequest("POST", "/predict", JSON, msgspec.json.encode(candidate))
            )
        except NoCompleteResponse:
            continue
        if response.status == 200:
            context.good = candidate
            return


async def _candidates(context: CheckContext) -> list[dict[str, Any]]:
    """Requests that may be good: the samples, the examples of the OpenAPI document, and a guess from the metadata."""
    found = [sample.request for sample in context.samples]
    with contextlib.suppress(NoCompleteResponse, ValueError):
        found += _examples((await context.client.request(RawRequest("GET", "/openapi.json"))).json())
    if context.inputs:
        found.append(
            {
                "instances": [
                    {tensor.name: _guess(tensor.datatype, tensor.shape[1:]) for tensor in context.inputs}
                ]
            }
        )
    return [c for c in found if isinstance(c.get("instances"), list) and c["instances"]][:5]


def _examples(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, dict):
        if isinstance(content.get("instances"), list):
            return [content]
        return [found for value in content.values() for found in _examples(value)]
    if isinstance(content, list):
        return [found for value in content for found in _examples(value)]
    return []


def _guess(datatype: str, shape: Sequence[int]) -> Any:
    if shape:
        return [_guess(datatype, shape[1:])] * max(shape[0], 1)
    return {"BOOL": True, "BYTES": "a"}.get(datatype, 1.0 if datatype.startswith("FP") else 1)


@contextlib.asynccontextmanager
async def started_backend(
    command: str, environ: Mapping[str, str], folder: Path | None = None
) -> AsyncIterator[tuple[str, BackendProcess]]:
    """Start a backend; yield its address and process.

    It runs on a free port, in `folder` where that is given, and ends at the exit. Raises BackendNotReady where it
    cannot be started.
    """
    port = claim_free_port()
    environment = {"CHIPS_MAX_BODY_BYTES": str(_SMALL_BODY_BYTES), **environ, "PORT": str(port)}
    try:
        process = BackendProcess(command, environment, folder)
        await process.spawn()
    except (OSError, ValueError) as error:
        raise BackendNotReady(f"{command!r} cannot be started: {error}") from None
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        await process.stop()
