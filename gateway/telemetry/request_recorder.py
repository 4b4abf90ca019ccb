"""Record each finished request.

It is counted in metrics, written to the access log, and its trace is kept where it is sampled. Runs for every request, however
it ended, and never raises. docs/explanation/tracing.md says what it costs.
"""

import logging
from collections.abc import Sequence

from gateway.core.exchange import Exchange
from gateway.core.per_process_random import random_share
from gateway.telemetry.access_log import JsonAccessLogFormatter, TextAccessLogFormatter
from gateway.telemetry.logs import LogWriter
from gateway.telemetry.metrics import CLIENT_CLOSED_REQUEST, RequestMetrics, Series, responsible_side
from gateway.telemetry.recorded_request import recorded_request_of
from gateway.telemetry.recorded_request_queue import RecordedRequestQueue

_log = logging.getLogger(__name__)


class RequestRecorder:
    """Records each finished request.

    It counts the request, writes its log line, and keeps its trace where it is sampled.

    `log_ratio` is the share of good requests that get a log line; bad ones always do. Up to `recent_per_s` requests a second
    that are not kept for another reason go to the `store` alone, so that a quiet gateway can show every request. `project`
    is the Google Cloud project of the traces; without one, the bare trace id is logged.
    """

    def __init__(
        self,
        writer: LogWriter,
        metrics: RequestMetrics,
        *,
        json: bool,
        project: str = "",
        log_ratio: float = 1.0,
        store: RecordedRequestQueue | None = None,
        exporters: Sequence[RecordedRequestQueue] = (),
        recent_per_s: int = 10,
        gateway: str = "",
    ) -> None:
        self._write = writer.write
        self._line: JsonAccessLogFormatter | TextAccessLogFormatter = (
            JsonAccessLogFormatter(project) if json else TextAccessLogFormatter(writer.colored)
        )
        self._metrics = metrics
        self._log_ratio = log_ratio
        self._store = store
        self._exporters = tuple(exporters)
        self._recent_per_s = recent_per_s if store is not None else 0
        self._second = 0
        self._recent = 0
        self._gateway = gateway

    def __call__(self, exchange: Exchange) -> None:
        if exchange.unlogged:
            return
        try:
            status = CLIENT_CLOSED_REQUEST if exchange.caller_disconnected else exchange.status
            series = self._metrics.observe(exchange, status)
            why = self._why_keep(exchange, status, series)
            if status >= 400 or self._log_ratio >= 1 or random_share() < self._log_ratio:
                self._write(self._line.__call__(exchange, status, why is not None and why != "recent"))
            if why is not None:
                self._keep(exchange, status, why)
        except Exception:  # noqa: BLE001  (the answer has gone out; a fault in its record must not undo that)
            _log.exception("request %s could not be recorded", exchange.request_id)

    def _why_keep(self, exchange: Exchange, status: int, series: Series) -> str | None:
        kept = exchange.keep_trace_because
        if kept == "asked":
            return kept
        if status >= 500:
            return "failed"
        if status == CLIENT_CLOSED_REQUEST:
            return "left"
        if exchange.ended - exchange.arrived > series.slow_s:
            return "slow"
        if kept is not None or not self._recent_per_s or not exchange.routed:
            return kept
        second = int(exchange.ended)
        if second != self._second:
            self._second = second
            self._recent = 0
        if self._recent < self._recent_per_s:
            self._recent += 1
            return "recent"
        return None

    def _keep(self, exchange: Exchange, status: int, why: str) -> None:
        if self._store is None and not (self._exporters and why != "recent"):
            return  # nowhere to keep it
        self._metrics.count_kept_trace(why)
        side, code = responsible_side(exchange, status) if status >= 400 else ("", "")
        request = recorded_request_of(
            exchange, status=status, kept=why, side=side, code=code, gateway=self._gateway
        )
        if self._store is not None:
            self._store.enqueue(request)
        if why != "recent":
            for exporter in self._exporters:
                exporter.enqueue(request)
