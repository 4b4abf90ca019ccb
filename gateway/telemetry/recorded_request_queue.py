"""A queue of recorded requests that a thread writes to a sink.

It is bounded. The sink is the store or an exporter. A slow destination never delays a request.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.telemetry.recorded_request import RecordedRequest
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor, join_in_steps

_log = logging.getLogger(__name__)


class TraceSink(Protocol):
    """A destination for recorded requests (traces).

    The store and the exporters have this interface. It is called from one thread.
    """

    def write(self, batch: Sequence[RecordedRequest], timeout_s: float) -> None:
        """Write or send a batch of requests within `timeout_s`. Any exception counts as a failure."""

    def close(self) -> None: ...


class RecordedRequestQueue:
    """A queue of recorded requests that a thread writes to a sink.

    It is bounded, and written in batches. At most `limit` wait. More than that, and what the sink cannot take, is dropped
    and counted.

    The sink is opened in the thread, because its imports must not block the event loop.
    """

    def __init__(
        self,
        name: str,
        open_sink: Callable[[], TraceSink],
        *,
        limit: int = 4096,
        batch: int = 512,
        interval_s: float = 0.5,
        timeout_s: float = 3.0,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.name = name
        self.dropped = 0
        self._open_sink = open_sink
        self._limit = limit
        self._half = (limit + 1) // 2
        self._batch = batch
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._waiting: list[RecordedRequest] = []
        self._taken = 0  # by the thread, and neither written nor lost yet
        self._given_up = False
        self._wake = threading.Event()
        self._deadline: float | None = None  # set when it is to end
        self._thread = (supervisor or Supervisor()).create_retrying_thread(
            f"export {name}", self._run, interrupt_backoff=self._wake
        )

    def start(self) -> None:
        self._thread.start()

    def enqueue(self, request: RecordedRequest) -> None:
        """Add one request to the queue. Never blocks."""
        if len(self._waiting) < self._limit:
            self._waiting.append(request)  # read again: after a call, the thread may have taken the list
            if len(self._waiting) == self._half:
                self._wake.set()  # else a gateway that keeps all fills it before the next round
        else:
            self.dropped += 1

    def stop(self, timeout_s: float) -> None:
        """Write the rest of the queue, and stop. It takes `timeout_s` at most; what remains is dropped and counted."""
        self._deadline = time.monotonic() + timeout_s
        self._wake.set()
        if self._thread.ident is not None:
            join_in_steps(self._thread, timeout_s)
        if self._thread.is_alive():
            self._given_up = True
            self.dropped += self._taken
        self.dropped += len(self._waiting)
        self._waiting = []
        if self.dropped:
            _log.warning("%s: %d traces were lost", self.name, self.dropped)

    def _run(self, helper: HelperHealth) -> None:
        sink: TraceSink | None = None
        while True:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            stopping = self._deadline is not None
            waiting, self._waiting = self._waiting, []
            self._taken = len(waiting)
            for start in range(0, len(waiting), self._batch):
                batch = waiting[start : start + self._batch]
                left_s = self._left_s()
                if left_s <= 0:
                    self._lose(len(waiting) - start)
                    break
                try:
                    if sink is None:
                        sink = self._open_sink()
                    sink.write(batch, left_s)
                except Exception as error:  # noqa: BLE001  (whatever a sink raises, requests go on)
                    self._lose(len(batch))
                    helper.failed(error)
                else:
                    self._taken -= len(batch)
                    helper.succeeded()
            if stopping:
                break
        if sink is not None:
            sink.close()

    def _lose(self, count: int) -> None:
        if not self._given_up:  # else they have been counted
            self.dropped += count
            self._taken -= count

    def _left_s(self) -> float:
        if self._deadline is None:
            return self._timeout_s
        return min(self._timeout_s, self._deadline - time.monotonic())
