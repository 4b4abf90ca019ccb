"""The model in service: fetched, loaded, warmed up, ready; then scored."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from chips_backend.artifact import EX_DATAERR, Artifact, Wanted, obtain
from chips_backend.batch import Batcher
from chips_backend.config import Config
from chips_backend.logs import Log
from chips_backend.manifest import Manifest
from chips_backend.model import Facts, Rows
from chips_backend.prediction_pool import LoadFailed
from chips_backend.warm_up import StartError, warm_up
from chips_backend.workers import Outcome, Workers
from chips_backend.wrong_files import WrongArtifact

EX_SOFTWARE = 70


class Loaded(NamedTuple):
    """A model in service: its artifact, its workers, and how to score rows."""

    artifact: Artifact
    workers: Workers
    score: Callable[[Rows, dict[str, Any], float | None], Awaitable[Outcome]]
    batcher: Batcher | None
    facts: Facts

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
    log.add_facts(model=manifest.model, version=manifest.version)
    log.info(f"the artifact {artifact.address} is complete and checked", artifact_digest=artifact.digest)
    workers = Workers(config.concurrency, log)
    try:
        facts = await workers.start(artifact.folder, manifest)
    except LoadFailed as error:
        log.error("the model could not be loaded", stack=error.failed.stack)
        is_wrong = error.failed.kind == WrongArtifact.__name__
        raise StartError(_not_loaded(artifact, error), EX_DATAERR if is_wrong else EX_SOFTWARE) from None
    manifest = msgspec.structs.replace(manifest, signature=facts.signature)
    artifact = artifact._replace(manifest=manifest)
    facts = await warm_up(manifest, facts, workers, log)
    if config.batch_target_ms and manifest.rows == "together":
        log.warning('CHIPS_BATCH_TARGET_MS is not used: the manifest says rows = "together"')
    elif manifest.rows != "together" and config.batch_target_ms != 0:
        batcher = Batcher(workers, (config.batch_target_ms or 0) / 1000)
        return Loaded(artifact, workers, batcher.score, batcher, facts)
    return Loaded(artifact, workers, workers.score, None, facts)


def _not_loaded(artifact: Artifact, error: LoadFailed) -> str:
    failed = error.failed
    if failed.kind == WrongArtifact.__name__:  # which says all there is to say
        return f"{artifact.address} could not be loaded: {failed.text}"
    made_with = ", ".join(f"{name} {version}" for name, version in artifact.manifest.runtime.items())
    return (
        f"{artifact.address} could not be loaded: {failed.kind}: {failed.text}. "
        f"It was made with {made_with or 'versions that its manifest does not name'}: are these installed?"
    )
