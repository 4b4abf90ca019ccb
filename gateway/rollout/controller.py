"""The rollout controller: takes the steps of rollouts as the evidence allows.

All gateways report the evidence. One process takes the steps at a time, by a lease. Each step is one registry write that names the
revisions it was decided on, so even two controllers that both believe to hold the lease cannot take it twice, and a model
that somebody changed meanwhile is never overwritten.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import msgspec

from gateway.core.model import DEFAULT_TIMEOUT_S, Model, parse_model
from gateway.core.model_updates import merge_document, to_document
from gateway.core.rollout_document import Rollout, changed_by_hand, with_traffic
from gateway.core.version_evidence import CANARY, EvidenceRecord, backend_predict_url
from gateway.registry.base import (
    MODELS,
    ROLLOUTS,
    Conflict,
    Document,
    Put,
    Registry,
    RegistryError,
    Unavailable,
)
from gateway.registry.evidence_records import evidence_change, image_bound_to_evidence
from gateway.registry.mirror import Mirror
from gateway.registry.snapshot import read_rollout
from gateway.rollout.assessment import ASSESSMENTS, Assessment
from gateway.rollout.decision import Decision, apply_decision, decide
from gateway.rollout.lease import LEASE, Lease
from gateway.rollout.reporting_gateways import ReportingGateways
from gateway.rollout.request_count_reporter import FIGURES, RolloutReport
from gateway.rollout.step_webhook_delivery import StepWebhookDelivery
from gateway.telemetry.metrics import Reading
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor

_log = logging.getLogger(__name__)

AUTHOR: Final = "rollout controller"
_TICK_S: Final = 5.0
_LEAST_TICK_S: Final = 0.2
_STOP_S: Final = 1.0


class _Watched:
    """A rollout as this controller follows it."""

    def __init__(self, assessment: Assessment, revision: int, now: float) -> None:
        self.assessment = assessment
        self.revision = revision  # of the document `assessment` is kept in
        self.gateways = ReportingGateways()
        self.looked_at = now


class RolloutController:
    """The rollout controller: reconciles all active rollouts while it holds the lease.

    `figures` is where gateways report, `registry` where everything else is; `secret` signs what webhooks get.
    """

    def __init__(
        self,
        registry: Registry,
        figures: Registry,
        mirror: Mirror,
        *,
        secret: str = "",
        supervisor: Supervisor,
        lease_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._figures = figures
        self._mirror = mirror
        self._webhooks = StepWebhookDelivery(registry, secret, supervisor=supervisor, clock=clock)
        self._supervisor = supervisor
        self._clock = clock
        holder = f"{os.getpid()}-{uuid4().hex[:12]}"
        self._lease = Lease(registry, LEASE, holder, ttl_s=lease_s, clock=clock)
        self._watched: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None
        self._told: dict[str, str] = {}  # by model: why it waits, as was last logged
        self.steps: dict[str, int] = {}  # taken by this process, by model

    async def start(self) -> None:
        self._task = self._supervisor.start_retrying_task("rollout controller", self._run)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._webhooks.stop(_STOP_S)
        with contextlib.suppress(RegistryError, TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._lease.release()

    def counters(self) -> Reading:
        return {"chips_rollout_steps_total": {model: float(count) for model, count in self.steps.items()}}

    async def _run(self, helper: HelperHealth) -> None:
        while True:
            try:
                problem = await self.reconcile()
            except RegistryError as error:
                helper.failed(error)
                self._watched.clear()  # what is kept in the registry is the truth
            else:
                if problem is None:
                    helper.succeeded()
                else:
                    helper.failed(problem)
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        shortest = min(
            (one.plan.window_s for one in self._rollouts().values() if one.active), default=_TICK_S
        )
        return max(_LEAST_TICK_S, min(_TICK_S, shortest / 4, self._lease.ttl_s / 4))

    def _rollouts(self) -> dict[str, Rollout]:
        snapshot = self._mirror.snapshot
        return dict(snapshot.rollouts) if snapshot is not None and self._mirror.is_authoritative else {}

    async def reconcile(self) -> RegistryError | None:
        """Reconcile each rollout once; return the error of one that could not be written.

        It takes the step that the evidence allows now, if this process holds the lease. The returned error kept one rollout
        from being written, such as a document that is too large: the others go on. Raises RegistryError where the registry
        itself fails.
        """
        rollouts = self._rollouts()
        active = {name: rollout for name, rollout in rollouts.items() if rollout.active}
        if not active and not self._webhooks.rollouts_with_due_webhooks(rollouts.values()):
            self._watched.clear()
            return None
        if not await self._lease.acquire_or_renew():
            self._watched.clear()
            return None
        problem: RegistryError | None = None
        try:
            await self._webhooks.start_due_deliveries(rollouts.values())
        except Conflict as error:
            _log.info("webhooks: %s", error)
        except Unavailable:
            raise
        except RegistryError as error:
            problem = error
        for name in set(self._watched) - set(active):
            del self._watched[name]
        documents = await self._figures.list_ephemeral(FIGURES) if active else ()
        for name, rollout in active.items():
            reports = [one for one in documents if one.name.startswith(f"{name}.")]
            try:
                await self._look_at(name, rollout, reports)
            except Conflict as error:  # somebody was quicker: look again, with what is there now
                self._watched.pop(name, None)
                _log.info("rollout of %s: %s", name, error)
            except Unavailable:
                raise
            except RegistryError as error:
                self._watched.pop(name, None)
                self._log_once(logging.ERROR, name, "cannot go on", str(error))
                problem = error
        return problem

    async def _look_at(self, name: str, rollout: Rollout, documents: list[Document]) -> None:
        watched = self._watched.get(name)
        if watched is None or watched.assessment.rollout != rollout.id:
            watched = self._watched[name] = await self._resume(name, rollout)
        now = self._clock()
        seen = watched.assessment
        seen.enter_step(rollout.position)
        if rollout.state == "running":  # a rollout that is held for days has not been tried for days
            seen.waited_s += now - watched.looked_at
        watched.looked_at = now
        entry = self._mirror.snapshot.entries.get(name) if self._mirror.snapshot is not None else None
        model = entry.model if entry is not None else None
        timeout_s = model.policy.timeout_s if model is not None else DEFAULT_TIMEOUT_S
        before = (seen.reporting, seen.silent, seen.left_out)
        changed = self._take(watched, rollout, documents, now)
        gone = self._leave_out(watched, rollout, {one.name for one in documents}, timeout_s, now)
        changed |= bool(gone) or before != (seen.reporting, seen.silent, seen.left_out)
        decision = decide(rollout, model, seen)
        if changed or decision.action != "wait":
            watched.revision = await self._registry.write_ephemeral(
                ASSESSMENTS, name, to_document(seen), expected=watched.revision
            )
        for report in gone:  # what they held is kept now; one that is there after all writes it again
            await self._figures.delete_ephemeral(FIGURES, report)
        if decision.action == "wait":
            self._log_once(logging.INFO, name, "waits", decision.reason)
        elif self._lease.is_held:
            await self._act(name, rollout, decision, seen)

    def _log_once(self, level: int, name: str, what: str, reason: str) -> None:
        """Not again with each turn, nor for each new count in `reason`."""
        about = f"{what}: {reason.split(':', maxsplit=1)[0]}"
        if self._told.get(name) != about:
            self._told[name] = about
            _log.log(level, "rollout of %s %s: %s", name, what, reason)

    async def _resume(self, name: str, rollout: Rollout) -> _Watched:
        """Go on where another controller was, if one was."""
        now = self._clock()
        for document in await self._registry.list_ephemeral(ASSESSMENTS):
            if document.name == name:
                try:
                    kept = msgspec.convert(document.body, Assessment, str_keys=True)
                except msgspec.ValidationError:
                    kept = Assessment.begin(rollout)  # of another release: it begins again from nothing
                if kept.rollout != rollout.id:
                    kept = Assessment.begin(rollout)
                return _Watched(kept, document.revision, now)
        return _Watched(Assessment.begin(rollout), 0, now)

    def _take(self, watched: _Watched, rollout: Rollout, documents: list[Document], now: float) -> bool:
        """Take in what gateways report; whether anything is new."""
        changed = False
        for document in documents:
            try:
                report = msgspec.convert(document.body, RolloutReport, str_keys=True)
            except msgspec.ValidationError as error:
                _log.error("%s/%s cannot be read: %s", document.kind, document.name, error)
                continue
            if report.rollout == rollout.id:
                watched.gateways.saw(document, report, now)
                changed |= watched.assessment.add_new_windows(rollout, report)
        return changed

    def _leave_out(
        self, watched: _Watched, rollout: Rollout, existing: set[str], timeout_s: float, now: float
    ) -> list[str]:
        """The reports of gateways that nobody waits for any more."""
        seen, gateways = watched.assessment, watched.gateways
        departed = gateways.end_turn(existing, now, window_s=rollout.plan.window_s, timeout_s=timeout_s)
        for name in departed.silent_too_long:
            _log.warning("rollout of %s: it goes on without gateway %s, which is silent", rollout.model, name)
        seen.reporting, seen.silent = gateways.reporting, gateways.silent
        seen.left_out += len(departed.silent_too_long)
        gone = [*departed.ended, *departed.silent_too_long]
        for document in gone:
            seen.judge_single_version_windows(rollout.plan, document.removeprefix(f"{rollout.model}."))
        return gone

    async def _act(self, name: str, rollout: Rollout, decision: Decision, seen: Assessment) -> None:
        """Take one step: the rollout and the model's traffic in one write. Raises Conflict."""
        document = await self._registry.read(ROLLOUTS, name)
        if document is None or not _is(document, rollout):
            return  # the mirror is behind: decide again when it is not
        evidence = seen.evidence()
        new = apply_decision(rollout, decision, evidence)
        changes = [Put(kind=ROLLOUTS, name=name, body=to_document(new), expected=document.revision)]
        if new.traffic != rollout.traffic:
            found = await self._registry.read(MODELS, name)
            model = _model(found)
            if found is not None and model is None:
                self._log_once(
                    logging.ERROR, name, "cannot go on: the model's document is unreadable", decision.reason
                )
                return
            if found is None or model is None or changed_by_hand(rollout, model):
                return  # decided again, as a hold, when the mirror shows it
            body = merge_document(found.body, with_traffic(model, new.traffic))
            changes.append(Put(kind=MODELS, name=name, body=body, expected=found.revision))
        if not new.active:
            changes.append(await self._verdict(name, new, seen))
        generation = await self._registry.write(*changes, author=AUTHOR, reason=decision.reason)
        self.steps[name] = self.steps.get(name, 0) + 1
        level = logging.WARNING if decision.action in {"return", "hold"} else logging.INFO
        _log.log(level, "rollout of %s: %s (generation %d)", name, decision.reason, generation)
        await self._webhooks.start_due_deliveries([new])
        await self._clean_up(name, keep=new.id if new.active else "")

    async def _verdict(self, name: str, rollout: Rollout, seen: Assessment) -> Put:
        """The end of a rollout as evidence about the candidate: it passes by proof alone, not because time was over."""
        entry = self._mirror.snapshot.entries.get(name) if self._mirror.snapshot is not None else None
        backend = entry.model.backend(rollout.candidate) if entry is not None else None
        image = await image_bound_to_evidence(self._registry, name, backend) if backend is not None else ""
        record = EvidenceRecord(
            model=name,
            version=rollout.candidate,
            sort=CANARY,
            passed=rollout.state == "succeeded" and not seen.questions_not_yet_fine(),
            summary=rollout.reason,
            backend=backend_predict_url(backend) if backend is not None else "",
            artifact_digest=backend.artifact_digest if backend is not None else "",
            image=image,
            facts={
                "rollout": rollout.id,
                "stable": rollout.stable,
                "min_requests": rollout.plan.min_requests,
                "tolerated": {"max_errors": rollout.plan.max_errors, "slower": rollout.plan.slower},
                **seen.evidence(),
            },
        )
        return await evidence_change(self._registry, record)

    async def _clean_up(self, name: str, *, keep: str) -> None:
        """Delete what gateways that are gone have left of rollouts other than `keep`; those that run delete their own."""
        for document in await self._figures.list_ephemeral(FIGURES):
            if document.name.startswith(f"{name}.") and document.body.get("rollout") != keep:
                await self._figures.delete_ephemeral(FIGURES, document.name)


def _is(document: Document, rollout: Rollout) -> bool:
    try:
        return read_rollout(document) == rollout
    except ValueError:
        return False


def _model(document: Document | None) -> Model | None:
    if document is None or document.problem:
        return None
    try:
        return parse_model(document.body)
    except ValueError:
        return None
