"""Push this process's metrics to a sink periodically. A thread does it; the sink is an exporter."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from gateway.telemetry.metrics import MetricsState, RequestMetrics
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor


class MetricsSink(Protocol):
    """The interface of a destination for metrics, such as an exporter."""

    def write(self, state: MetricsState, timeout_s: float) -> None:
        """Send a metrics state within `timeout_s`. Any exception counts as a failure."""

    def close(self) -> None: ...


class MetricsPusher:
    """Pushes this process's metrics to a sink periodically.

    A thread does it. They are labelled with its instance; readers add the processes up.
    """

    def __init__(
        self,
        metrics: RequestMetrics,
        open_sink: Callable[[], MetricsSink],
        *,
        every_s: float,
        timeout_s: float = 10.0,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._metrics = metrics
        self._open_sink = open_sink
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._stop_by: float | None = None
        self._stopping = threading.Event()
        supervisor = supervisor or Supervisor()
        self._helper = supervisor.helper("metrics export")
        self._thread = supervisor.create_retrying_thread(
            "metrics export", self._run, interrupt_backoff=self._stopping
        )

    @property
    def failures_in_a_row(self) -> int:
        """How many pushes in a row have failed, up to now."""
        return self._helper.failing

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Push once more, and stop. The push has `timeout_s`."""
        self._stop_by = time.monotonic() + timeout_s
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self, helper: HelperHealth) -> None:
        sink: MetricsSink | None = None
        while True:
            self._stopping.wait(self._every_s)
            stop_by = self._stop_by
            timeout_s = self._timeout_s if stop_by is None else max(stop_by - time.monotonic(), 0.1)
            try:
                if sink is None:
                    sink = self._open_sink()
                sink.write(self._metrics.live_state(), timeout_s)
            except Exception as error:  # noqa: BLE001  (whatever a sink raises, requests go on)
                helper.failed(error)
            else:
                helper.succeeded()
            if stop_by is not None:
                break
        if sink is not None:
            sink.close()
