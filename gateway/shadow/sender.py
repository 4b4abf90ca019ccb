"""Sends copies of a model's requests to a candidate version.

It copies a share of the requests. A caller's answer is copied while it passes. When the caller has it, the request goes
to the candidate, and some requests to the stable version once more, over connections of their own. No caller waits for
this: what does not fit the budget is dropped and counted.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.core.errors import GatewayError
from gateway.core.exchange import BUFFERED_BODY_BYTES, Exchange
from gateway.core.model import Backend
from gateway.core.per_process_random import random_share
from gateway.core.shadow_document import Shadow
from gateway.core.token_bucket import TokenBucket
from gateway.server.eager_coroutine_runner import EagerCoroutineRunner
from gateway.shadow.answer_recording import (
    HeldBytesLimit,
    RecordedAnswer,
    RecordingResponse,
    RecordOnlyResponse,
    ResendableBody,
)
from gateway.shadow.comparer_main import AnswerPair
from gateway.shadow.decode_answer import Answer, has_known_coding
from gateway.stages.adaptive_backend_concurrency import AdaptiveBackendConcurrency
from gateway.stages.forward import path_below_backend_url
from gateway.upstream.base import Upstream, UpstreamRequest

_NOT_COMPARED: Final = frozenset({429, 503})  # the backend did not do the work
_TOO_LARGE: Final = "too-large"  # for the budget
_MARK: Final = b"X-Chips-Shadow: 1\r\n"


class _Waiting:
    """A request whose caller has its answer."""

    __slots__ = ("again", "body", "exchange", "recording", "request")

    def __init__(self, exchange: Exchange, recorded: RecordingResponse, body: bytes, *, again: bool) -> None:
        self.exchange = exchange
        self.recording = recorded.recording
        self.request = recorded.request
        self.body = body
        self.again = again


def _is_judged_by_its_status(status: int) -> bool:
    return status >= 500


def _can_be_compared(answer: Answer) -> bool:
    """A failure is one whatever its body is, but for one that was too large for us; of all else the body must be readable."""
    if answer.failure == _TOO_LARGE:
        return False
    return bool(answer.failure) or _is_judged_by_its_status(answer.status) or has_known_coding(answer.coding)


class ShadowSender:
    """Sends copies of requests to a shadow's candidate.

    It hands on the answers to be compared. `compare` takes a pair of answers, and says whether it had room.
    """

    def __init__(
        self,
        shadow: Shadow,
        candidate: Backend,
        stable: Backend,
        upstream: Upstream,
        slots: AdaptiveBackendConcurrency,
        compare: Callable[[AnswerPair], bool],
    ) -> None:
        self.shadow = shadow
        self.sampled = 0
        self.dropped: dict[str, int] = {}
        self.incomparable = 0  # of the dropped: the candidate's answer came, and is none that can be compared
        self._compared = 0  # pairs that were handed on to be compared, and not lost
        self._candidate = candidate
        self._stable = stable
        self._upstream = upstream
        self._slots = slots
        self._compare = compare
        self._ends = time.monotonic() + shadow.ends_at - time.time()
        rate = shadow.budget.requests_per_s
        self._bucket = TokenBucket(per_second=rate, burst=max(1, int(rate)))
        self._waiting: deque[_Waiting] = deque()
        self._recorded: set[_Waiting] = set()  # answers on their way to their callers
        self._held = HeldBytesLimit(shadow.budget.buffer_bytes)
        self._runners: set[EagerCoroutineRunner] = set()
        self._loop = asyncio.get_running_loop()
        self._one_ended = asyncio.Event()

    def count_uncompared_as_lost(self, compared: int) -> None:
        """Count all pairs but `compared` as lost. They were handed on and will never be compared."""
        if self._compared > compared:
            self._drop("comparison lost", self._compared - compared)
            self._compared = compared

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._ends

    async def wait_idle(self) -> None:
        """Wait until no copied request waits or is under way."""
        while self._waiting or self._runners:
            self._one_ended.clear()
            await self._one_ended.wait()

    def refresh_backends(self, candidate: Backend, stable: Backend) -> None:
        """Take the backends of the same two versions as the registry has them now.

        What ID tokens for them are made for may have changed.
        """
        self._candidate, self._stable = candidate, stable

    def stop_sampling(self) -> None:
        """Stop sampling requests.

        No more are copied and sent; what is under way still counts. Those that wait are dropped: the reason to end may
        be that nothing must be sent twice.
        """
        self._ends = 0.0
        while self._waiting:
            self._let_go(self._waiting.popleft())
            self._drop("ended")

    def cancel(self) -> None:
        """Stop sampling, and cancel the requests under way. Their answers are not compared."""
        self.stop_sampling()
        for runner in list(self._runners):
            runner.cancel()

    # -- before the request is forwarded

    def observe(self, exchange: Exchange, request: UpstreamRequest) -> None:
        """Sample a request before it is forwarded.

        Its answer is recorded where the request is one of the share and fits the budget.
        """
        shadow, target = self.shadow, exchange.target
        if (
            exchange.backend.version != shadow.stable
            or exchange.assigned == "pin"
            or exchange.method != "POST"
            or target.rest != (target.path if target.infers else "")
            or isinstance(exchange.response, RecordingResponse)
            or random_share() * 100 >= shadow.percent
            or self.over
        ):
            return
        self.sampled += 1
        body = exchange.body
        if not body.complete or len(whole := body.buffered_body()) >= BUFFERED_BODY_BYTES:
            self._drop("large request")
        elif self._is_full(len(whole)):
            self._drop("busy")
        elif not self._bucket.take():
            self._drop("rate")
        else:
            self._record(exchange, request, whole)

    def _is_full(self, more_bytes: int) -> bool:
        budget, recorded = self.shadow.budget, self._recorded
        if len(self._waiting) + len(recorded) >= budget.waiting:
            for one in [one for one in recorded if one.exchange.ended and not one.recording.ended]:
                recorded.discard(one)  # its caller left, or the backend broke off
                self._let_go(one)
                self._drop("no whole answer")
        return (
            len(self._waiting) + len(recorded) >= budget.waiting
            or self._held.now + more_bytes > self._held.limit
        )

    def _record(self, exchange: Exchange, request: UpstreamRequest, body: bytes) -> None:
        again = random_share() * 100 < self.shadow.noise_percent
        recording = RecordedAnswer(self.shadow.budget.body_bytes, self._held)
        recorded = RecordingResponse(exchange.response, recording, request)  # type: ignore[arg-type]  # the server's own
        exchange.response = recorded
        one = _Waiting(exchange, recorded, body, again=again)
        self._recorded.add(one)
        self._held.now += len(body)
        # In a round of its own: the caller's answer has been written by then, and other callers have had their turn.
        recording.on_end = partial(self._loop.call_soon, self._answered, one)

    # -- after the caller has its answer

    def _answered(self, one: _Waiting) -> None:
        self._recorded.discard(one)
        known = _is_judged_by_its_status(one.recording.status) or has_known_coding(one.recording.coding)
        if one.recording.complete and known and one.recording.status not in _NOT_COMPARED and not self.over:
            self._waiting.append(one)
            self._pump()
            return
        self._let_go(one)
        if not known:
            self._drop("unknown coding")
        elif one.recording.too_large:
            self._drop("large answer")
        elif one.recording.crowded_out:
            self._drop("busy")
        elif one.recording.status in _NOT_COMPARED:
            self._drop("refused")

    def _let_go(self, one: _Waiting) -> None:
        self._held.now -= len(one.body)
        one.recording.release()

    def _pump(self) -> None:
        while self._waiting and len(self._runners) < self.shadow.budget.concurrency:
            self._start(self._waiting.popleft())

    def _start(self, one: _Waiting) -> None:
        def ended() -> None:
            self._let_go(one)
            self._runners.discard(runner)
            self._one_ended.set()
            self._loop.call_soon(self._pump)

        runner = EagerCoroutineRunner(self._loop, ended)
        self._runners.add(runner)
        runner.start(self._carry(one))

    async def _carry(self, one: _Waiting) -> None:
        stable = _answer(one.recording, one.exchange)
        candidate = await self._ask(one, self._candidate, "candidate busy")
        if candidate is None:
            return
        if not _can_be_compared(candidate):  # no failure of its own
            self.incomparable += 1
            self._drop("large answer" if candidate.failure == _TOO_LARGE else "unknown coding")
            return
        again = (
            await self._ask(one, self._stable, "stable version busy") if one.again and not self.over else None
        )
        if again is not None and (again.status in _NOT_COMPARED or not _can_be_compared(again)):
            again = None
        pair = AnswerPair(
            self.shadow.id,
            one.exchange.request_id,
            stable,
            candidate,
            again,
            self.shadow.tolerance,
            self.shadow.tolerances,
        )
        if self._compare(pair):
            self._compared += 1
        else:
            self._drop("comparison")

    async def _ask(self, one: _Waiting, backend: Backend, busy: str) -> Answer | None:
        """The answer of `backend`, where one of its slots is free: callers come first, also at a candidate that has some."""
        exchange = self._exchange(one, backend)
        slot = self._slots.try_nowait(exchange)
        exchange.may_wait = False
        if slot is None:
            self._drop(busy)
            return None
        with slot:
            return await self._send(exchange, one)

    async def _send(self, exchange: Exchange, one: _Waiting) -> Answer:
        backend = exchange.backend
        request = UpstreamRequest(
            exchange.method,
            backend.url,
            path_below_backend_url(backend, exchange.target),
            [*one.request.fields, _MARK],
        )
        response: RecordOnlyResponse = exchange.response  # type: ignore[assignment]
        failure = ""
        try:
            await self._upstream.send(exchange, request)
        except GatewayError as error:
            failure = error.code
        return _answer(response.recording, exchange, failure)

    def _exchange(self, one: _Waiting, backend: Backend) -> Exchange:
        """The same request once more, with a deadline of its own."""
        was, now = one.exchange, time.monotonic()
        exchange = Exchange(
            was.method,
            was.raw_target,
            was.headers,
            was.peer,
            was.scheme,
            ResendableBody(one.body),  # type: ignore[arg-type]  # as much of one as the upstream needs
            RecordOnlyResponse(RecordedAnswer(self.shadow.budget.body_bytes)),  # type: ignore[arg-type]
            now,
        )
        exchange.request_id = was.request_id
        exchange.head, exchange.target, exchange.trace = was.head, was.target, was.trace
        exchange.model, exchange.backend = was.model, backend
        exchange.deadline = now + was.model.policy.timeout_s
        exchange.body_limit_bytes = was.body_limit_bytes
        return exchange

    def _drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count


def _answer(recording: RecordedAnswer, exchange: Exchange, failure: str = "") -> Answer:
    """What came back. A duration is that of the last attempt."""
    attempt = exchange.attempts[-1] if exchange.attempts else None
    ended = attempt.ended if attempt is not None and attempt.ended is not None else time.monotonic()
    if not failure and not recording.complete:
        failure = _TOO_LARGE if recording.too_large else "incomplete"
    return Answer(
        recording.status,
        b"" if failure else recording.body,
        recording.coding,
        recording.json_length,
        ended - attempt.began if attempt is not None else 0.0,
        failure,
    )
