"""Tracks which gateways report on a rollout. It finds those that are silent or have ended.

The controller judges this by its own clock, from the time when it first sees a new report.
"""

from typing import Final, NamedTuple

from gateway.registry.base import Document
from gateway.rollout.process_liveness import has_ended
from gateway.rollout.request_count_reporter import RolloutReport

LATE_WINDOWS: Final = 3.0  # without a report, a gateway is late: the verdict that all is fine waits


class _Gateway:
    def __init__(self, revision: int, now: float, process: str, *, current: bool) -> None:
        self.revision = revision
        self.reported_at = now
        self.process = process
        self.current = current  # its last report was written while we looked


class DepartedGateways(NamedTuple):
    """The gateways that ended or were silent for too long, by the names of their documents."""

    ended: list[str]
    silent_too_long: list[str]


class ReportingGateways:
    """Tracks which gateways report on a rollout.

    Call `saw` for each report in each turn, then `end_turn`. A gateway is silent until it has reported under our eyes, and
    when it is late; the step waits for it. It is left out where it cannot be waited for: its process has ended, or it has
    been silent for longer than any request may take on top.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Gateway] = {}
        self._stopped: list[str] = []  # in this turn
        self._first_turn = True
        self.reporting = 0
        self.silent = 0

    def saw(self, document: Document, report: RolloutReport, now: float) -> None:
        name = document.name
        if report.final:  # it has stopped, and said so
            self._known.pop(name, None)
            self._stopped.append(name)
            return
        known = self._known.get(name)
        if known is None or known.revision != document.revision:
            self._known[name] = _Gateway(document.revision, now, report.process, current=not self._first_turn)

    def end_turn(
        self, existing_documents: set[str], now: float, *, window_s: float, timeout_s: float
    ) -> DepartedGateways:
        """End the turn: forget and return the gateways that have ended or were silent for too long.

        The others are counted as `reporting` or `silent`. `existing_documents`: the names of all reports that there are; a
        gateway whose report is gone is forgotten, too.
        """
        self._first_turn = False
        late_s = LATE_WINDOWS * window_s
        ended, silent_too_long = self._stopped, []
        self._stopped = []
        for name, gateway in list(self._known.items()):
            if name not in existing_documents:
                pass
            elif has_ended(gateway.process):
                ended.append(name)
            elif now - gateway.reported_at >= late_s + window_s + timeout_s:
                silent_too_long.append(name)
            else:
                continue
            del self._known[name]
        silent = [
            gateway
            for gateway in self._known.values()
            if not gateway.current or now - gateway.reported_at > late_s
        ]
        self.silent = len(silent)
        self.reporting = len(self._known) - self.silent
        return DepartedGateways(ended, silent_too_long)
