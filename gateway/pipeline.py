"""The way of one request, top to bottom.

To learn what happens to a request, read `Pipeline._pass`. To add a step: write a stage in `gateway/stages`, build it in
`gateway/app.py`, call it here, and name it in docs/architecture.md.
"""

import logging
import time
from asyncio import CancelledError

from gateway.control.routes import Control
from gateway.core.errors import GatewayError, InternalError
from gateway.core.exchange import Exchange
from gateway.core.problem import render_problem
from gateway.core.turn import in_task
from gateway.stages.admit import Admit
from gateway.stages.authenticate import Authenticate
from gateway.stages.authorize import Authorize
from gateway.stages.concurrency import Concurrency
from gateway.stages.cors import Cors
from gateway.stages.forward import Forward
from gateway.stages.gather import Gather
from gateway.stages.identify import Identify
from gateway.stages.limit import Limit
from gateway.stages.meter import Meter
from gateway.stages.route import Route
from gateway.stages.sample import Sample
from gateway.telemetry.record import Record

_log = logging.getLogger(__name__)


class Pipeline:
    __slots__ = (
        "_admit",
        "_authenticate",
        "_authorize",
        "_concurrency",
        "_control",
        "_cors",
        "_forward",
        "_gather",
        "_identify",
        "_limit",
        "_meter",
        "_record",
        "_route",
        "_sample",
    )

    def __init__(  # noqa: PLR0913  (one argument for each step)
        self,
        *,
        identify: Identify,
        control: Control,
        admit: Admit,
        route: Route,
        cors: Cors,
        authenticate: Authenticate,
        authorize: Authorize,
        sample: Sample,
        meter: Meter,
        gather: Gather,
        limit: Limit,
        concurrency: Concurrency,
        forward: Forward,
        record: Record,
    ) -> None:
        self._identify = identify
        self._control = control
        self._admit = admit
        self._route = route
        self._cors = cors
        self._authenticate = authenticate
        self._authorize = authorize
        self._sample = sample
        self._meter = meter
        self._gather = gather
        self._limit = limit
        self._concurrency = concurrency
        self._forward = forward
        self._record = record

    async def __call__(self, exchange: Exchange) -> None:
        """Take one request to its answer. Raises nothing but cancellation."""
        try:
            await self._pass(exchange)
        except GatewayError as error:
            exchange.error = error
            exchange.cause = error.__cause__
            await self._refuse(exchange, error)
        except CancelledError:
            exchange.left = True  # the caller went away; that is nobody's error
            raise
        except Exception as bug:  # noqa: BLE001  (the one place that nothing may escape from)
            exchange.error = InternalError()
            exchange.cause = bug
            _log.error("request %s met a bug", exchange.request_id, exc_info=bug)
            await self._refuse(exchange, exchange.error)
        finally:
            exchange.ended = time.monotonic()
            self._record(exchange)

    async def _pass(self, exchange: Exchange) -> None:
        self._identify(exchange)
        if self._control.is_probe(exchange):  # before admit: a platform probes from addresses nobody can list
            await in_task()
            await self._control.answer(exchange)
            return
        self._admit(exchange)  # before route: an outsider must not learn which models exist
        if not exchange.target.model:
            await in_task()
            await self._control.answer(exchange)
            return
        if not self._route.at_once(
            exchange
        ):  # before authenticate: the model says which credentials it takes
            await self._route(exchange)
        exchange.routed = time.monotonic()
        preflight = self._cors(exchange)  # before authenticate: a browser asks without credentials
        if preflight is not None:
            await exchange.reply.send(preflight)
            return
        if not self._authenticate.at_once(exchange):
            await in_task()
            await self._authenticate(exchange)
        exchange.authenticated = time.monotonic()
        self._authorize(exchange)
        if self._control.is_description(exchange):
            await in_task()
            await self._control.describe(exchange)
            return
        self._sample(exchange)  # before limit: a wait in the queue is part of the trace
        # After authorize: the unwelcome use up nothing. Before limit: who is over the rate waits in no queue.
        if not self._meter.at_once(exchange):
            await in_task()
            await self._meter(exchange)
        if not exchange.body.complete:  # before limit: who sends slowly takes nobody's place meanwhile
            await self._gather(exchange)
        with self._limit.at_once(exchange) or await self._limit(exchange):
            while True:  # once, unless the backend refuses before it begins
                with self._concurrency.at_once(exchange) or await self._concurrency(exchange):
                    exchange.permitted = time.monotonic()
                    await self._forward(exchange)
                refusal = exchange.refusal
                if refusal is None:
                    return
                exchange.refusal = None
                if not self._concurrency.again(exchange):
                    await refusal.let_go()
                    return

    async def _refuse(self, exchange: Exchange, error: GatewayError) -> None:
        if exchange.reply.started:
            exchange.reply.cut()  # half an answer must not look like a whole one
            return
        target = getattr(exchange, "target", None)
        open_inference = target is not None and target.open_inference
        await exchange.reply.send(render_problem(error, exchange.request_id, open_inference=open_inference))
