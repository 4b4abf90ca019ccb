"""Read the status of a shadow. `chips shadow` and the console show it."""

import asyncio
import logging
import time
from typing import Any

import msgspec

from gateway.core.model import Model
from gateway.core.model_updates import to_document
from gateway.core.shadow_document import Shadow, why_not_shadowed
from gateway.registry.base import Registry, RegistryError
from gateway.registry.mirror import Mirror
from gateway.shadow.difference_counts import ShadowReport
from gateway.shadow.run_shadows import FIGURES
from gateway.shadow.shadow_verdict import combine_reports, verdict_document

_log = logging.getLogger(__name__)


async def read_shadow_status(figures: Registry, shadow: Shadow, model: Model | None) -> dict[str, Any]:
    """Read the status of a shadow, as JSON values.

    It is its document, whether it runs, and the verdict on what gateways report.

    Raises RegistryError.

    `unreadable` names the reports that were left out, of another release, say.
    """
    reports, unreadable = [], []
    for one in await figures.list_ephemeral(FIGURES):
        if one.name.rpartition(".")[0] == shadow.model:
            try:
                reports.append(msgspec.convert(one.body, ShadowReport, str_keys=True))
            except msgspec.ValidationError as error:
                unreadable.append(f"{one.name} cannot be read: {error}")
    ended = why_not_shadowed(shadow, model, time.time())
    # In a thread: the intervals of many outputs take a while, and the console asks in a process that serves callers.
    combined = combine_reports(reports, shadow.id)
    verdict = await asyncio.to_thread(verdict_document, combined, shadow.allowed)
    return {
        "shadow": to_document(shadow),
        "running": not ended,
        "ended": ended or None,
        "gateways": sum(report.shadow == shadow.id for report in reports),
        "unreadable": unreadable,
        "unused_tolerances": sorted(filter(combined.findings.pairs.no_answer_had, shadow.tolerances)),
        **verdict,
    }


class ModelShadowStatusReader:
    """Reads the status of a model's last shadow. It is for the console. Call it with the model's name."""

    def __init__(self, mirror: Mirror, figures: Registry) -> None:
        self._mirror = mirror
        self._figures = figures

    async def __call__(self, model: str) -> dict[str, Any] | None:
        """None where there is none, or the store of figures does not answer."""
        snapshot = self._mirror.snapshot
        shadow = snapshot.shadows.get(model) if snapshot is not None else None
        if snapshot is None or shadow is None:
            return None
        entry = snapshot.entries.get(model)
        try:
            return await read_shadow_status(self._figures, shadow, entry.model if entry is not None else None)
        except RegistryError as error:
            _log.info("the shadow of %s is not shown: %s", model, error)
            return None
