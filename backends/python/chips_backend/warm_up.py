"""Warm up: the backend is ready once the model has predicted its samples, or a row that it can take."""

import asyncio
import math
from typing import Any

from chips_backend.artifact import EX_DATAERR
from chips_backend.decode_instances import Scoring, read_instances
from chips_backend.failure_cause import CannotTake, ModelFailed
from chips_backend.likely_rows import likely_rows
from chips_backend.logs import Log
from chips_backend.manifest import Manifest, Sample
from chips_backend.model import Facts, Row
from chips_backend.predictions_as_json import is_close
from chips_backend.problem_details import Problem
from chips_backend.workers import Outcome, Workers

_FAILURES = (Problem, CannotTake, ModelFailed)


class StartError(Exception):
    """The model cannot be served; the text says why, `exit_code` how the process ends."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


async def warm_up(manifest: Manifest, facts: Facts, workers: Workers, log: Log) -> Facts:
    """Predict in every slot, learn which row the model can take, and look at the answers' shape.

    Returns the facts, corrected by what was seen. Raises StartError.
    """
    for note in facts.notes:
        log.warning(note)
    if manifest.samples:
        await _score_samples(manifest, facts, workers, log)
    else:
        workers.good = await _find_good_row(manifest, facts, workers, log)
    if workers.good is None:
        return facts
    await _check_shapes(workers, len(manifest.signature.outputs))
    return await _check_probabilities(facts, workers, log)


async def _score_samples(manifest: Manifest, facts: Facts, workers: Workers, log: Log) -> None:
    """All samples once, the first one in every slot. Another answer than the published one means another environment."""
    took_s = 0.0
    for number, sample in enumerate(manifest.samples):
        what = "first sample" if number == 0 else f"sample {number}"
        times = workers.concurrency if number == 0 else 1
        try:
            scoring = read_instances(_copy(sample.request), manifest.signature, facts.parameters)
            outcomes = await asyncio.gather(
                *(workers.score(scoring.rows, scoring.parameters, None) for _ in range(times))
            )
        except _FAILURES as error:
            log.error(f"the {what} could not be scored", stack=_stack(error))
            raise StartError(
                f"the manifest's {what} could not be scored: {_told(error)}{_versions(manifest, facts)}",
                EX_DATAERR,
            ) from None
        took_s += outcomes[0].predict_s
        for outcome in outcomes:
            if not is_close(outcome.predictions, sample.response.get("predictions"), sample.tolerance):
                draws_lots = await _draws_lots(workers, scoring, outcome, sample.tolerance)
                raise StartError(
                    f"the manifest's {what} came out differently from what was published "
                    f"({_mismatch(outcome, sample)}): "
                    + (
                        "the model predicts something else for the same rows each time, so it must draw its random numbers from a "
                        "generator that predict() makes with a fixed seed"
                        if draws_lots
                        else "the packages here differ from those the model was made with"
                        + _versions(manifest, facts)
                    ),
                    EX_DATAERR,
                )
        if workers.good is None and scoring.rows and not scoring.parameters:
            workers.good = scoring.rows[0]
    count = len(manifest.samples)
    told = "the sample" if count == 1 else f"{count} samples"
    log.info(f"warmed up: {told} came out as published, in {took_s * 1000:.1f} ms")


async def _draws_lots(workers: Workers, scoring: Scoring, first: Outcome, tolerance: float) -> bool:
    """Whether the model predicts something else for the same rows."""
    try:
        again = await workers.score(scoring.rows, scoring.parameters, None)
    except _FAILURES:
        return False
    return not is_close(again.predictions, first.predictions, tolerance)


def _copy(request: Any) -> Any:
    """Checking a request turns 1.0 into 1 where it stands; the manifest stays as it is."""
    if isinstance(request, dict):
        return {name: _copy(value) for name, value in request.items()}
    return [_copy(value) for value in request] if isinstance(request, list) else request


def _versions(manifest: Manifest, facts: Facts) -> str:
    if facts.notes:
        return f" ({'; '.join(facts.notes)}). Install the version that it was made with, or train it again"
    made_with = ", ".join(f"{name} {version}" for name, version in manifest.runtime.items())
    return f". It was made with {made_with}: are these installed?" if made_with else ""


async def _find_good_row(manifest: Manifest, facts: Facts, workers: Workers, log: Log) -> Row:
    error: Exception | None = None
    answers_nothing = False
    for row in likely_rows(manifest.signature, facts.examples):
        try:
            outcomes = await asyncio.gather(
                *(workers.score([row], {}, None) for _ in range(workers.concurrency))
            )
        except _FAILURES as failure:
            error = error or failure
            continue
        if _is_missing(outcomes[0].predictions[0]):
            answers_nothing = True
            continue
        log.warning(
            f"warmed up with a likely row, in {outcomes[0].predict_s * 1000:.1f} ms; "
            "the manifest has no samples, so nobody has checked what the model predicts"
        )
        return row
    if error is not None:
        log.error("no row was found that this model can take", stack=_stack(error))
    raise StartError(
        "the manifest has no samples, and no row was found that this model can take"
        + (f" ({_told(error)})" if error is not None else "")
        + (" (its answer is null)" if answers_nothing else "")
        + f"{_versions(manifest, facts)}. Publish it again with --samples, a JSON file such as "
        '[{"request": {"instances": [...]}, "response": {"predictions": [...]}}]'
        + ("" if manifest.signature.inputs else ", and with --signature"),
        EX_DATAERR,
    )


def _is_missing(prediction: Any) -> bool:
    """Whether a prediction is not a number: with a date that became NaN inside of the model, each answer would be null."""
    if isinstance(prediction, list | dict):
        parts = list(prediction.values()) if isinstance(prediction, dict) else prediction
        return bool(parts) and all(map(_is_missing, parts))
    return isinstance(prediction, float) and not math.isfinite(prediction)


async def _check_shapes(workers: Workers, outputs: int) -> None:
    """The same row several times in one call: an answer whose parts are not rows has another form then."""
    assert workers.good is not None  # noqa: S101
    try:
        alone = (await workers.score([workers.good], {}, None)).predictions[0]
        for count in sorted({2, 3, max(2, outputs)}):
            together = (await workers.score([workers.good] * count, {}, None)).predictions
            if any(_shape(prediction) != _shape(alone) for prediction in together):
                raise StartError(
                    f"the model's answer for a row has another shape when {count} rows are asked for at once: "
                    "rows must come first, with one prediction for each row",
                    EX_DATAERR,
                )
    except _FAILURES as error:
        raise StartError(
            f"the model predicts one row, but not the same row several times in one call: {_told(error)}",
            EX_DATAERR,
        ) from None


async def _check_probabilities(facts: Facts, workers: Workers, log: Log) -> Facts:
    """Whether there are probabilities, and a label for each; what is not so is no parameter of this model."""
    if "probabilities" not in facts.parameters or facts.classes is None or workers.good is None:
        return facts
    gone = {"classes", "probabilities"}
    try:
        label = (await workers.score([workers.good], {}, None)).predictions[0]
        one: Any = None
        for count in (1, 2, 3):
            one = (await workers.score([workers.good] * count, {"probabilities": True}, None)).predictions[0]
        if (
            isinstance(label, list)
            and isinstance(one, list)
            and not any(isinstance(part, list) for part in one)
        ):
            gone = {"classes"}  # several labels, and one probability for each instead of one for each class
        elif _fits(one, facts.classes):
            return facts
        else:
            log.warning("the model's probabilities do not fit its labels, so nobody may ask for them")
    except _FAILURES as error:
        log.warning(f"the model has no probabilities after all: {_told(error)}", stack=_stack(error))
    known = {name: kind for name, kind in facts.parameters.items() if name not in gone}
    return facts._replace(parameters=known, classes=None)


def _fits(probabilities: Any, classes: Any) -> bool:
    """Whether there is a label for each probability."""
    if isinstance(probabilities, dict):
        probabilities = list(probabilities.values())
    if not isinstance(probabilities, list) or len(probabilities) != len(classes):
        return False
    if classes and isinstance(classes[0], list):
        return all(_fits(part, labels) for part, labels in zip(probabilities, classes, strict=True))
    return all(isinstance(part, float | int) and -1e-6 <= part <= 1 + 1e-6 for part in probabilities)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(part) for name, part in value.items()}
    return [_shape(part) for part in value] if isinstance(value, list) else None


def _told(error: Exception) -> str:
    return error.detail if isinstance(error, Problem) else str(error)


def _stack(error: Exception) -> str:
    if isinstance(error, ModelFailed):
        return error.failed.stack
    return error.stack if isinstance(error, CannotTake) else ""


def _mismatch(outcome: Outcome, sample: Sample) -> str:
    return f"got {str(outcome.predictions)[:80]}, published {str(sample.response.get('predictions'))[:80]}"
