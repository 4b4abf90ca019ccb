"""The model in service: fetched, loaded, warmed up, ready; then scored."""

import asyncio
import math
from typing import Any, NamedTuple

from chips_backend.artifact import EX_DATAERR, Artifact, obtain
from chips_backend.config import Config
from chips_backend.logs import Log
from chips_backend.manifest import Manifest, Sample
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

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest


async def load(config: Config, log: Log) -> Loaded:
    """Fetch, check, load and warm up. Raises ArtifactError or StartError."""
    artifact = await asyncio.to_thread(
        obtain, config.artifact, config.cache_dir, config.model, config.version, log
    )
    log.info(f"the artifact {artifact.address} is complete and checked", artifact_digest=artifact.digest)
    workers = Workers(config.concurrency)
    try:
        await workers.start(artifact.folder, artifact.manifest)
    except Exception as error:
        log.error("the model could not be loaded", cause=error)
        made_with = ", ".join(f"{name} {version}" for name, version in artifact.manifest.runtime.items())
        raise StartError(
            f"{artifact.address} could not be loaded: {type(error).__name__}: {error}. "
            f"It was made with {made_with or 'versions that its manifest does not name'}: are these installed?",
            EX_SOFTWARE,
        ) from error
    loaded = Loaded(artifact, workers)
    await _warm_up(loaded, log)
    return loaded


async def _warm_up(loaded: Loaded, log: Log) -> None:
    """Score the manifest's first sample. Another answer than the published one means another environment: stop."""
    manifest = loaded.manifest
    if not manifest.samples:
        log.warning(
            "the manifest has no samples, so the first caller warms the model up and nobody has checked it"
        )
        return
    sample = manifest.samples[0]
    try:
        scoring = read_instances(sample.request, manifest.signature)
        outcome = await loaded.workers.score(scoring.rows, scoring.parameters, None)
    except Exception as error:
        log.error("the first sample could not be scored", cause=error)
        raise StartError(
            f"the manifest's first sample could not be scored: {type(error).__name__}: {error}", EX_DATAERR
        ) from error
    if not is_close(outcome.predictions, sample.response.get("predictions"), sample.tolerance):
        raise StartError(
            "the manifest's first sample came out differently from what was published "
            f"({_mismatch(outcome, sample)}): the packages here differ from those the model was made with",
            EX_DATAERR,
        )
    log.info(f"warmed up: the first sample came out as published, in {outcome.predict_s * 1000:.1f} ms")


def _mismatch(outcome: Outcome, sample: Sample) -> str:
    return f"got {str(outcome.predictions)[:80]}, published {str(sample.response.get('predictions'))[:80]}"


def is_close(got: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within `tolerance` (absolute, and relative to the larger one)."""
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
