import threading

import pytest

from gateway.telemetry.recorded_request import RecordedRequest
from gateway.telemetry.recorded_request_queue import RecordedRequestQueue
from tests.patience import patience
from tests.unit.telemetry.test_recorded_request_store import recorded


class TraceSink:
    def __init__(self, fail=False, gate: threading.Event | None = None) -> None:
        self.written: list[RecordedRequest] = []
        self.fail = fail
        self.gate = gate
        self.entered = threading.Event()
        self.closed = False

    def write(self, batch, timeout_s):
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(patience(30))
        if self.fail:
            raise ConnectionError("refused")
        self.written += batch

    def close(self):
        self.closed = True


def test_all_that_was_offered_is_written_on_stop():
    sink = TraceSink()
    export_queue = RecordedRequestQueue("test", lambda: sink, interval_s=60)
    export_queue.start()
    offered = [recorded() for _ in range(5)]
    for one in offered:
        export_queue.enqueue(one)
    export_queue.stop(patience(10))
    assert sink.written == offered
    assert sink.closed
    assert export_queue.dropped == 0


def test_half_a_queue_does_not_wait_for_the_next_round():
    sink = TraceSink()
    export_queue = RecordedRequestQueue("test", lambda: sink, limit=10, interval_s=600)
    export_queue.start()
    for _ in range(5):
        export_queue.enqueue(recorded())
    assert sink.entered.wait(patience(60))
    sink.entered.clear()
    for _ in range(5):  # and again: the wake is not used up, and is no wake for ever
        export_queue.enqueue(recorded())
    assert sink.entered.wait(patience(60))
    export_queue.stop(patience(20))
    assert (len(sink.written), export_queue.dropped) == (10, 0)


def test_a_sink_that_fails_costs_what_it_was_given_and_no_more():
    sink = TraceSink(fail=True)
    export_queue = RecordedRequestQueue("test", lambda: sink, interval_s=60)
    export_queue.start()
    for _ in range(5):
        export_queue.enqueue(recorded())
    export_queue.stop(patience(10))
    assert export_queue.dropped == 5


def test_a_sink_that_cannot_be_opened():
    def no_sink():
        raise ImportError("no such exporter")

    export_queue = RecordedRequestQueue("test", no_sink, interval_s=60)
    export_queue.start()
    export_queue.enqueue(recorded())
    export_queue.stop(patience(10))
    assert export_queue.dropped == 1


def test_a_sink_that_hangs_holds_up_neither_a_request_nor_the_stop():
    gate = threading.Event()
    sink = TraceSink(gate=gate)
    export_queue = RecordedRequestQueue("test", lambda: sink, limit=3, interval_s=0.01)
    export_queue.start()
    export_queue.enqueue(recorded())
    assert sink.entered.wait(patience(30))
    for _ in range(10):
        export_queue.enqueue(recorded())
    assert export_queue.dropped == 7
    export_queue.stop(0.1)
    assert export_queue.dropped == 11  # and the one that it hangs on
    gate.set()


def test_a_stop_before_the_start():
    export_queue = RecordedRequestQueue("test", TraceSink)
    export_queue.enqueue(recorded())
    export_queue.stop(1)
    assert export_queue.dropped == 1


def test_losses_are_told_of(caplog: pytest.LogCaptureFixture):
    export_queue = RecordedRequestQueue("test", lambda: TraceSink(fail=True), interval_s=60)
    export_queue.start()
    export_queue.enqueue(recorded())
    export_queue.stop(patience(10))
    assert "refused" in caplog.text
