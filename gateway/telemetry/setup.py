"""Set up the telemetry of a process: metrics, logs and traces.

The access log, trace store and exporters start and stop as one.
"""

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.telemetry.logs import LogWriter
from gateway.telemetry.metrics import Reading, RequestMetrics
from gateway.telemetry.metrics_push import MetricsPusher, MetricsSink
from gateway.telemetry.recorded_request_queue import RecordedRequestQueue, TraceSink
from gateway.telemetry.recorded_request_store import RequestAndTickReader, RequestAndTickWriter, Tick
from gateway.telemetry.request_recorder import RequestRecorder
from gateway.telemetry.worker_metrics_aggregation import MetricsAggregator, SharedWorkerMetrics

_log = logging.getLogger(__name__)

_FLUSH_S = 1.5  # of the ten seconds that Cloud Run allows for a stop


class Telemetry:
    """All telemetry of one process.

    Metrics, access log, trace store and exporters start and stop as one. `store` is the file of the trace store; `exporter`
    is `cloud-trace`, `otlp` or `none`. `metrics_exporter` is `cloud-monitoring`, `otlp` or `none`. `folder` is where the
    workers of one gateway share their metrics; a single process has none. Recent ticks are kept in the store; without one,
    in a temporary file that is removed with the gateway.
    """

    def __init__(  # noqa: PLR0913  (what is wired has as many ends as it has)
        self,
        logs: LogWriter,
        *,
        json: bool,
        log_ratio: float = 1.0,
        project: str = "",
        service: str = "chips",
        store: Path | None = None,
        store_requests: int = 20_000,
        recent_per_s: int = 10,
        exporter: str = "none",
        endpoint: str = "",
        metrics_exporter: str = "none",
        metrics_endpoint: str = "",
        metrics_every_s: float = 60.0,
        folder: Path | None = None,
    ) -> None:
        self.instance = f"{socket.gethostname()}-{os.getpid()}"
        name = {"project": project, "service": service, "instance": self.instance}
        self._supervisor = logs.supervisor
        self.metrics = RequestMetrics()
        self.shared = SharedWorkerMetrics(self.metrics, folder, self.instance)
        self.reader = RequestAndTickReader(store) if store is not None else None
        self._store = store
        self._store_requests = store_requests
        self._export_queues: list[RecordedRequestQueue] = []
        store_queue = self._add_export_queue("store", self._open_store) if store is not None else None

        def open_exporter() -> TraceSink:
            from gateway.telemetry.trace_sinks import open_trace_sink

            return open_trace_sink(exporter, endpoint=endpoint, **name)

        exporters = [self._add_export_queue(exporter, open_exporter)] if exporter != "none" else []
        own = folder / "figures.db" if folder is not None else None
        self.figures = RequestAndTickReader(store or own)
        self._figures_folder: tempfile.TemporaryDirectory[str] | None = None
        ticks = _LazyTicks(self._open_figures)
        self._aggregator = MetricsAggregator(
            self.metrics, self.shared, ticks, close_ticks=ticks.close, supervisor=self._supervisor
        )

        def open_metrics() -> MetricsSink:
            from gateway.telemetry.metrics_sinks import open_metrics_sink

            return open_metrics_sink(metrics_exporter, endpoint=metrics_endpoint, **name)

        self._sender = (
            MetricsPusher(self.metrics, open_metrics, every_s=metrics_every_s, supervisor=self._supervisor)
            if metrics_exporter != "none"
            else None
        )
        self.record = RequestRecorder(
            logs,
            self.metrics,
            json=json,
            project=project,
            log_ratio=log_ratio,
            store=store_queue,
            exporters=exporters,
            recent_per_s=recent_per_s,
            gateway=self.instance,
        )
        self._logs = logs
        self.metrics.add_readers(counters=self._counters)

    def _counters(self) -> Reading:
        return {
            "chips_traces_dropped_total": {
                export_queue.name: float(export_queue.dropped) for export_queue in self._export_queues
            },
            "chips_log_lines_dropped_total": {"": float(self._logs.dropped)},
            **self._supervisor.restart_counters(),
        }

    def start(self) -> None:
        if self.figures.path is None:
            try:
                self._figures_folder = tempfile.TemporaryDirectory(
                    prefix="chips-figures-", ignore_cleanup_errors=True
                )
                self.figures.path = Path(self._figures_folder.name) / "figures.db"
            except OSError as error:
                _log.warning("no recent figures are kept: there is no folder for temporary files: %s", error)
        for export_queue in self._export_queues:
            export_queue.start()
        self._aggregator.start()
        if self._sender is not None:
            self._sender.start()

    async def stop(self) -> None:
        """Stop the telemetry. What is left is sent first, within the time that a stop allows."""
        await asyncio.gather(
            *(asyncio.to_thread(export_queue.stop, _FLUSH_S) for export_queue in self._export_queues),
            asyncio.to_thread(self._aggregator.stop, _FLUSH_S),
            *([asyncio.to_thread(self._sender.stop, _FLUSH_S)] if self._sender is not None else []),
        )
        if self._figures_folder is not None:
            self._figures_folder.cleanup()

    def _add_export_queue(self, name: str, open_sink: Callable[[], TraceSink]) -> RecordedRequestQueue:
        export_queue = RecordedRequestQueue(name, open_sink, supervisor=self._supervisor)
        self._export_queues.append(export_queue)
        return export_queue

    def _open_store(self) -> RequestAndTickWriter:
        if self._store is None:
            raise RuntimeError("there is no store")
        return RequestAndTickWriter(self._store, limit=self._store_requests)

    def _open_figures(self) -> RequestAndTickWriter | None:
        path = self.figures.path
        return None if path is None else RequestAndTickWriter(path, limit=self._store_requests)


class _LazyTicks:
    """Opens the store in the thread that writes to it."""

    def __init__(self, open_store: Callable[[], RequestAndTickWriter | None]) -> None:
        self._open_store = open_store
        self._store: RequestAndTickWriter | None = None

    def __call__(self, ticks: Sequence[Tick]) -> None:
        if self._store is None:
            self._store = self._open_store()
        if self._store is not None:
            self._store.write_ticks(ticks)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
