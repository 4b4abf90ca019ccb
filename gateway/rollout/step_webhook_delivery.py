"""Deliver each step of a rollout to its webhook at least once, from the last delivered one on.

That holds whichever controller took the step, and however that controller ended. The steps in a rollout's document are the
messages. An ephemeral document next to it says how many of them were delivered, so the next holder of the lease goes on
there, under the same ids.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.core.model_updates import to_document
from gateway.core.rollout_document import Rollout, parse_rollout
from gateway.registry.base import ROLLOUTS, Change, Conflict, Document, Registry, RegistryError
from gateway.thread_and_task_supervisor import Supervisor

DELIVERIES: Final = "rollout-webhooks"
_FIRST_PAUSE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 900.0
_CHANGES: Final = 200  # of the history, in which an earlier rollout is looked for
_log = logging.getLogger(__name__)


class DeliveredSteps(msgspec.Struct, frozen=True, kw_only=True):
    """How many steps of a rollout were delivered to its webhook. It is the ephemeral document `rollout-webhooks/MODEL`."""

    rollout: str  # its id
    steps: int


class StepWebhookDelivery:
    """Delivers each step of a rollout to its webhook at least once, from the last delivered one on.

    Call `start_due_deliveries` in each turn, while the lease is held.
    """

    def __init__(
        self,
        registry: Registry,
        secret: str,
        *,
        supervisor: Supervisor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._secret = secret
        self._supervisor = supervisor
        self._clock = clock
        self._settled: dict[str, tuple[str, int]] = {}  # by model: rollout and steps that nothing is due for
        self._running: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, tuple[float, float]] = {}  # by model: until when, and how long it was

    def rollouts_with_due_webhooks(self, rollouts: Iterable[Rollout]) -> list[Rollout]:
        """The rollouts with a webhook that may be due now."""
        now = self._clock()
        return [
            one
            for one in rollouts
            if one.plan.webhook
            and self._settled.get(one.model) != (one.id, len(one.steps))
            and now >= self._pauses.get(one.model, (0.0, 0.0))[0]
        ]

    async def start_due_deliveries(self, rollouts: Iterable[Rollout]) -> None:
        """Start the deliveries that are due, each in a task of its own. Raises RegistryError."""
        pending = self.rollouts_with_due_webhooks(rollouts)
        if not pending:
            return
        documents = {one.name: one for one in await self._registry.list_ephemeral(DELIVERIES)}
        for rollout in pending:
            name = rollout.model
            if not self._secret:
                _log.error("the rollout's webhook was not told: set rollouts.webhook_secret_file")
                self._settled[name] = (rollout.id, len(rollout.steps))
            elif name not in self._running:
                await self._look_at(rollout, documents.get(name))

    async def stop(self, within_s: float) -> None:
        """Stop, after waiting for the deliveries under way.

        After `within_s` they are cancelled. Another controller sends them again.
        """
        if self._running:
            await asyncio.wait(self._running.values(), timeout=within_s)
        for task in self._running.values():
            task.cancel()

    async def _look_at(self, rollout: Rollout, document: Document | None) -> None:
        name = rollout.model
        delivered = _read(document)
        revision = document.revision if document is not None else 0
        if delivered is None and not rollout.active:
            # It is written before the first step is taken: this one ended elsewhere, in a registry that was copied, say.
            self._settled[name] = (rollout.id, len(rollout.steps))
        elif delivered is None:
            await self._registry.write_ephemeral(
                DELIVERIES, name, to_document(DeliveredSteps(rollout=rollout.id, steps=0)), expected=revision
            )
        elif delivered.rollout == rollout.id and delivered.steps >= len(rollout.steps):
            self._settled[name] = (rollout.id, len(rollout.steps))
        else:
            task = self._supervisor.start_one_off_task(
                "rollout webhook", self._deliver(rollout, delivered, revision)
            )
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))

    async def _deliver(self, rollout: Rollout, delivered: DeliveredSteps, revision: int) -> None:
        """Send what is due, the oldest first, what is left of an earlier rollout before it."""
        name = rollout.model
        try:
            changes = await self._registry.history(kind=ROLLOUTS, name=name, limit=_CHANGES)
            if delivered.rollout != rollout.id:
                earlier = _last_of(changes, delivered.rollout)
                if earlier is not None and earlier.plan.webhook:
                    revision = await self._send_rest(earlier, rollout, delivered.steps, revision, changes)
                delivered = DeliveredSteps(rollout=rollout.id, steps=0)
                revision = await self._keep(name, delivered, revision)
            await self._send(rollout, delivered.steps, revision, changes)
        except _NotTaken:
            longer = min(2 * self._pauses.get(name, (0.0, _FIRST_PAUSE_S / 2))[1], _LONGEST_PAUSE_S)
            self._pauses[name] = (self._clock() + longer, longer)
        except (Conflict, RegistryError) as error:  # another controller was quicker, or we look again
            _log.info("webhook of the rollout of %s: %s", name, error)
        else:
            self._pauses.pop(name, None)

    async def _send_rest(
        self, earlier: Rollout, rollout: Rollout, sent: int, revision: int, changes: Iterable[Change]
    ) -> int:
        """Send what is left of an earlier rollout. An address that was replaced and takes nothing must not hold up the new one."""
        try:
            return await self._send(earlier, sent, revision, changes)
        except _NotTaken as not_taken:
            if earlier.plan.webhook == rollout.plan.webhook:
                raise
            _log.error(
                "the last steps of the rollout of %s before this one are told to nobody: its webhook takes nothing, and the new "
                "rollout has another one",
                rollout.model,
            )
            return not_taken.revision

    async def _send(self, rollout: Rollout, sent: int, revision: int, changes: Iterable[Change]) -> int:
        """Send the steps after the first `sent` ones. Raises _NotTaken, Conflict, RegistryError."""
        from gateway.rollout import webhook

        generations = _generations(changes, rollout.id)
        for number in range(sent + 1, len(rollout.steps) + 1):
            message = _message(rollout, number, generations.get(number))
            identity = f"{rollout.id}-{number}"
            if not await webhook.post_webhook_with_retries(
                rollout.plan.webhook, self._secret, identity, message
            ):
                raise _NotTaken(revision)
            revision = await self._keep(
                rollout.model, DeliveredSteps(rollout=rollout.id, steps=number), revision
            )
        return revision

    async def _keep(self, name: str, delivered: DeliveredSteps, revision: int) -> int:
        return await self._registry.write_ephemeral(
            DELIVERIES, name, to_document(delivered), expected=revision
        )


class _NotTaken(Exception):
    """The receiver took none of the attempts; the document of what was delivered has `revision` by then."""

    def __init__(self, revision: int) -> None:
        super().__init__(revision)
        self.revision = revision


def _message(rollout: Rollout, number: int, generation: int | None) -> dict[str, Any]:
    step = rollout.steps[number - 1]
    return {
        "type": "rollout.step",
        "model": rollout.model,
        "version": rollout.candidate,
        "stable": rollout.stable,
        "state": step.state,
        "percent": step.percent,
        "reason": step.reason,
        "rollout": rollout.id,
        "generation": generation,
        "evidence": step.evidence,
    }


def _read(document: Document | None) -> DeliveredSteps | None:
    try:
        return None if document is None else msgspec.convert(document.body, DeliveredSteps)
    except msgspec.ValidationError:
        return None


def _of(changes: Iterable[Change], identity: str) -> list[tuple[Change, Mapping[str, Any]]]:
    return [(one, one.after) for one in changes if one.after is not None and one.after.get("id") == identity]


def _last_of(changes: Iterable[Change], identity: str) -> Rollout | None:
    for _, after in _of(changes, identity):
        try:
            return parse_rollout(after)
        except ValueError:
            return None
    return None


def _generations(changes: Iterable[Change], identity: str) -> dict[int, int]:
    """By the number of a step: the generation of the registry that took it."""
    return {len(after.get("steps", ())): change.generation for change, after in _of(changes, identity)}
