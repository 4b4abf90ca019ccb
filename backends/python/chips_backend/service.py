"""The model in service: fetched, loaded, warmed up, ready; then scored."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from chips_backend.artifact import EX_DATAERR, Artifact, Wanted, obtain
from chips_backend.batch import Batcher
from chips_backend.config import Config
from chips_backend.logs import Log
from chips_backend.manifest import Manifest, Sample, Tensor
from chips_backend.model import Rows
from chips_backend.schema import read_instances
from chips_backend.workers import Outcome, Workers

EX_SOFTWARE = 70


class StartError(Exception):
    """The model cannot be served; the text says why, `exit_code` how the process ends."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Loaded(NamedTuple):
    artifact: Artifact
    workers: Workers
    score: Callable[[Rows, dict[str, Any], float | None], Awaitable[Outcome]]
    batcher: Batcher | None

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def served(self) -> str:
        return f"{self.manifest.model}@{self.manifest.version}"

    async def stop(self, grace_s: float) -> None:
        if self.batcher is not None:
            await self.batcher.stop()
        await self.workers.stop(grace_s)


async def load(config: Config, log: Log) -> Loaded:
    """Fetch, check, load and warm up. Raises ArtifactError or StartError."""
    wanted = Wanted(config.model, config.version, config.artifact_digest)
    artifact = await asyncio.to_thread(obtain, config.artifact, config.cache_dir, wanted, log)
    manifest = artifact.manifest
    log.know(model=manifest.model, version=manifest.version)
    log.info(f"the artifact {artifact.address} is complete and checked", artifact_digest=artifact.digest)
    workers = Workers(config.concurrency)
    try:
        await workers.start(artifact.folder, manifest)
    except Exception as error:
        log.error("the model could not be loaded", cause=error)
        made_with = ", ".join(f"{name} {version}" for name, version in manifest.runtime.items())
        raise StartError(
            f"{artifact.address} could not be loaded: {type(error).__name__}: {error}. "
            f"It was made with {made_with or 'versions that its manifest does not name'}: are these installed?",
            EX_SOFTWARE,
        ) from error
    await _warm_up(manifest, workers, log)
    if config.batch_target_ms and manifest.rows == "together":
        log.warning('CHIPS_BATCH_TARGET_MS is not used: the manifest says rows = "together"')
    elif config.batch_target_ms:
        batcher = Batcher(workers, config.batch_target_ms / 1000)
        return Loaded(artifact, workers, batcher.score, batcher)
    return Loaded(artifact, workers, workers.score, None)


async def _warm_up(manifest: Manifest, workers: Workers, log: Log) -> None:
    """Predict once in every slot: the manifest's first sample, or a row of zeros where it has none.

    Another answer than the published one means another environment: stop.
    """
    sample = manifest.samples[0] if manifest.samples else None
    try:
        scoring = read_instances(sample.request if sample else _neutral(manifest), manifest.signature)
        outcomes = await asyncio.gather(
            *(workers.score(scoring.rows, scoring.parameters, None) for _ in range(workers.concurrency))
        )
    except Exception as error:
        if sample is None:
            log.warning(
                "the manifest has no samples, and a row of zeros could not be predicted to warm up",
                cause=error,
            )
            return
        log.error("the first sample could not be scored", cause=error)
        raise StartError(
            f"the manifest's first sample could not be scored: {type(error).__name__}: {error}", EX_DATAERR
        ) from error
    took = f"in {outcomes[0].predict_s * 1000:.1f} ms"
    if sample is None:
        log.warning(
            f"warmed up with a row of zeros, {took}; the manifest has no samples, so nobody has checked the model"
        )
        return
    for outcome in outcomes:
        if not is_close(outcome.predictions, sample.response.get("predictions"), sample.tolerance):
            raise StartError(
                "the manifest's first sample came out differently from what was published "
                f"({_mismatch(outcome, sample)}): the packages here differ from those the model was made with",
                EX_DATAERR,
            )
    log.info(f"warmed up: the first sample came out as published, {took}")


def _neutral(manifest: Manifest) -> dict[str, Any]:
    return {"instances": [[_zero(tensor, 1) for tensor in manifest.signature.inputs]]}


def _zero(tensor: Tensor, dimension: int) -> Any:
    if dimension < len(tensor.shape):
        return [_zero(tensor, dimension + 1) for _ in range(abs(tensor.shape[dimension]))]
    return {"BYTES": "", "BOOL": False}.get(tensor.datatype, 0)


def _mismatch(outcome: Outcome, sample: Sample) -> str:
    return f"got {str(outcome.predictions)[:80]}, published {str(sample.response.get('predictions'))[:80]}"


def is_close(got: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within `tolerance` (absolute, and relative to the larger one)."""
    if isinstance(got, float) and not math.isfinite(got):
        return wanted is None  # as JSON shows it
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, int | float) and isinstance(wanted, int | float):
        return math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(
            is_close(g, w, tolerance) for g, w in zip(got, wanted, strict=True)
        )
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(is_close(got[key], wanted[key], tolerance) for key in got)
    return bool(got == wanted)
