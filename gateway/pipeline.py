# Long: the way of one request is one function, since each call costs every request.
"""The pipeline: the stages that every request passes, in order.

To learn what happens to a request, read `Pipeline.__call__`. To add a step: write a stage in `gateway/stages`, build it in
`gateway/app.py`, call it here, and name it in docs/architecture.md.
"""

import logging
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.control.routes import ControlRoutes
from gateway.core.errors import GatewayError, InternalError
from gateway.core.exchange import Exchange
from gateway.core.header_classification import PINNED_VERSION
from gateway.core.inline_wakeup_future import COMPLETED, continue_in_own_task
from gateway.core.needs_wait_sentinel import NEEDS_WAIT, NeedsWait
from gateway.core.problem_details import render_problem
from gateway.stages.adaptive_backend_concurrency import ANYWHERE, AdaptiveBackendConcurrency
from gateway.stages.authenticate import Authenticate
from gateway.stages.authorize import Authorize
from gateway.stages.budget_limit import BudgetLimit
from gateway.stages.buffer_start_of_body import BufferStartOfBody
from gateway.stages.concurrency_limit import ConcurrencyLimit
from gateway.stages.cors import Cors
from gateway.stages.forward import Forward
from gateway.stages.gateway_ip_allowlist import GatewayIpAllowlist
from gateway.stages.pinned_or_sticky_override import PinnedOrStickyOverride
from gateway.stages.rate_limit import RateLimit
from gateway.stages.read_request_context import ReadRequestContext
from gateway.stages.route_to_backend import RouteToBackend
from gateway.stages.trace_sampling import TraceSampling
from gateway.telemetry.request_recorder import RequestRecorder

_log = logging.getLogger(__name__)


class _Record(Protocol):
    def __call__(self, exchange: Exchange, /) -> None: ...


class Pipeline:
    """Calls the stages in order for each request.

    Every error becomes a problem document.

    `stage.__call__(…)` is what `stage(…)` does, for a third less: CPython specializes the call of a method, not of an instance.
    """

    __slots__ = (
        "_adaptive_backend_concurrency",
        "_authenticate",
        "_authorize",
        "_budget_limit",
        "_buffer_start_of_body",
        "_concurrency_limit",
        "_control",
        "_cors",
        "_forward",
        "_gateway_ip_allowlist",
        "_pinned_or_sticky_override",
        "_rate_limit",
        "_read_request_context",
        "_record",
        "_recorder",
        "_route_to_backend",
        "_trace_sampling",
    )

    def __init__(  # noqa: PLR0913  (one argument for each step)
        self,
        *,
        read_request_context: ReadRequestContext,
        control: ControlRoutes,
        gateway_ip_allowlist: GatewayIpAllowlist,
        route_to_backend: RouteToBackend,
        cors: Cors,
        authenticate: Authenticate,
        authorize: Authorize,
        trace_sampling: TraceSampling,
        budget_limit: BudgetLimit,
        rate_limit: RateLimit,
        buffer_start_of_body: BufferStartOfBody,
        pinned_or_sticky_override: PinnedOrStickyOverride,
        concurrency_limit: ConcurrencyLimit,
        adaptive_backend_concurrency: AdaptiveBackendConcurrency,
        forward: Forward,
        record: RequestRecorder,
    ) -> None:
        self._read_request_context = read_request_context
        self._control = control
        self._gateway_ip_allowlist = gateway_ip_allowlist
        self._route_to_backend = route_to_backend
        self._cors = cors
        self._authenticate = authenticate
        self._authorize = authorize
        self._trace_sampling = trace_sampling
        self._budget_limit = budget_limit
        self._rate_limit = rate_limit
        self._buffer_start_of_body = buffer_start_of_body
        self._pinned_or_sticky_override = pinned_or_sticky_override
        self._concurrency_limit = concurrency_limit
        self._adaptive_backend_concurrency = adaptive_backend_concurrency
        self._forward = forward
        self._recorder = record
        self._record: _Record = record

    def set_rollout_exchange_counter(self, count: Callable[[Exchange], None] | None) -> None:
        """Set the function that counts finished exchanges for a rollout. None: nothing counts, and that costs nothing."""
        recorder = self._recorder
        if count is None:
            self._record = recorder
            return

        def record(exchange: Exchange) -> None:
            recorder(exchange)
            try:
                count(exchange)
            except Exception:  # noqa: BLE001  (the answer has gone out; a fault in its count must not undo that)
                _log.exception("request %s could not be counted", exchange.request_id)

        self._record = record

    async def __call__(self, exchange: Exchange) -> None:  # noqa: C901, PLR0911, PLR0912, PLR0915  (a line or two for each step)
        """Take one request to its answer. Raises nothing but cancellation.

        A stage returns, or raises, why it refuses the request. Refusals that strangers cause are returned: an error that is raised
        through four functions costs a fifth of what a refusal takes.
        """
        refused: GatewayError | NeedsWait | None
        try:
            self._read_request_context.__call__(exchange)
            # Before the allowlist: a platform probes from addresses nobody can list.
            if self._control.is_health_probe(exchange):
                await continue_in_own_task()
                return await self._control.answer(exchange)
            refused = self._gateway_ip_allowlist.__call__(exchange)
            if refused is not None:  # before route: an outsider must not learn which models exist
                return await self._refuse(exchange, refused)
            if not exchange.target.model:
                await continue_in_own_task()
                return await self._control.answer(exchange)
            # Before authenticate: the model says which credentials it takes.
            if not self._route_to_backend.try_nowait(exchange):
                await self._route_to_backend(exchange)
            exchange.routed = time.monotonic()
            preflight = self._cors.__call__(exchange)
            if preflight is not None:  # before authenticate: a browser asks without credentials
                return await exchange.response.send(preflight)
            refused = self._authenticate.try_nowait(exchange)
            if refused is NEEDS_WAIT:
                await continue_in_own_task()
                refused = await self._authenticate(exchange)
            if refused is not None:
                return await self._refuse(exchange, refused)
            exchange.authenticated = time.monotonic()
            refused = self._authorize.__call__(exchange)
            if refused is not None:
                return await self._refuse(exchange, refused)
            if self._control.is_model_description(exchange):
                await continue_in_own_task()
                return await self._control.describe_model(exchange)
            self._trace_sampling.__call__(exchange)  # before limit: a wait in the queue is part of the trace
            if self._budget_limit.exhausted and (refused := self._budget_limit(exchange)) is not None:
                return await self._refuse(exchange, refused)
            # After authorize: a refused caller uses up nothing. Before the concurrency limit: a caller over its rate waits in no queue.
            refused = self._rate_limit.try_nowait(exchange)
            if refused is NEEDS_WAIT:
                await continue_in_own_task()
                refused = await self._rate_limit(exchange)
            if refused is not None:
                return await self._refuse(exchange, refused)
            if not exchange.body.complete:  # before limit: who sends slowly takes nobody's place meanwhile
                await self._buffer_start_of_body(exchange)
            if exchange.sticky is not None or exchange.head.read[PINNED_VERSION] is not None:
                # after the body, which may hold what the share sticks to
                self._pinned_or_sticky_override(exchange)
            permit = self._concurrency_limit.try_nowait(exchange) or await self._concurrency_limit(exchange)
            try:
                while True:  # once, unless the backend refuses before it begins
                    slot = self._adaptive_backend_concurrency.try_nowait(exchange)
                    if slot is ANYWHERE:
                        exchange.permitted = time.monotonic()
                        await self._forward.__call__(exchange)
                    else:
                        with slot or await self._adaptive_backend_concurrency(exchange):
                            exchange.permitted = time.monotonic()
                            await self._forward.__call__(exchange)
                    refusal = exchange.refusal
                    if refusal is None:
                        return None
                    exchange.refusal = None
                    if not self._adaptive_backend_concurrency.should_retry_after_refusal(exchange):
                        return await refusal.deliver()
            finally:
                permit.release()
        except GatewayError as error:
            _drop_tracebacks(error)
            await self._refuse(exchange, error, error.__cause__)
        except CancelledError:
            # The caller went away; that is nobody's error, and what was refused before stays refused.
            exchange.caller_disconnected = exchange.error is None
            raise
        except Exception as bug:  # noqa: BLE001  (the one place that nothing may escape from)
            _log.error("request %s met a bug", exchange.request_id, exc_info=bug)
            _drop_tracebacks(bug)
            await self._refuse(exchange, InternalError(), bug)
        finally:
            exchange.ended = time.monotonic()
            self._record.__call__(exchange)
            # Their tracebacks lead back here: a refused request would wait for the garbage collector.
            exchange.error = exchange.cause = None

    def _refuse(
        self, exchange: Exchange, error: GatewayError, cause: BaseException | None = None
    ) -> Awaitable[None]:
        exchange.error, exchange.cause = error, cause
        response = exchange.response
        if response.started:
            response.abort()  # half an answer must not look like a whole one
            return COMPLETED
        target = getattr(exchange, "target", None)
        open_inference = target is not None and target.open_inference
        return response.send(
            render_problem(error, exchange.request_id, add_open_inference_error=open_inference)
        )


def _drop_tracebacks(error: BaseException | None) -> None:
    """Drop the tracebacks of an error and of those that led to it, so that the request does not wait for the garbage collector.

    A traceback refers to frames, and these to the functions that called them, which hold the error (since Python 3.13 always).
    """
    while error is not None and error.__traceback__ is not None:  # an error may have led to itself
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
