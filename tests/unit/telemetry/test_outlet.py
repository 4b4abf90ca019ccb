import threading

import pytest

from gateway.telemetry.outlet import Outlet
from gateway.telemetry.summary import Summary
from tests.unit.telemetry.test_store import summary


class Sink:
    def __init__(self, fail=False, gate: threading.Event | None = None) -> None:
        self.written: list[Summary] = []
        self.fail = fail
        self.gate = gate
        self.entered = threading.Event()
        self.closed = False

    def write(self, batch, timeout_s):
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(30)
        if self.fail:
            raise ConnectionError("refused")
        self.written += batch

    def close(self):
        self.closed = True


def test_all_that_was_offered_is_written_on_stop():
    sink = Sink()
    outlet = Outlet("test", lambda: sink, interval_s=60)
    outlet.start()
    offered = [summary() for _ in range(5)]
    for one in offered:
        outlet.offer(one)
    outlet.stop(10)
    assert sink.written == offered
    assert sink.closed
    assert outlet.dropped == 0


def test_half_a_queue_does_not_wait_for_the_next_round():
    sink = Sink()
    outlet = Outlet("test", lambda: sink, limit=10, interval_s=600)
    outlet.start()
    for _ in range(5):
        outlet.offer(summary())
    assert sink.entered.wait(60)
    sink.entered.clear()
    for _ in range(5):  # and again: the wake is not used up, and is no wake for ever
        outlet.offer(summary())
    assert sink.entered.wait(60)
    outlet.stop(20)
    assert (len(sink.written), outlet.dropped) == (10, 0)


def test_a_sink_that_fails_costs_what_it_was_given_and_no_more():
    sink = Sink(fail=True)
    outlet = Outlet("test", lambda: sink, interval_s=60)
    outlet.start()
    for _ in range(5):
        outlet.offer(summary())
    outlet.stop(10)
    assert outlet.dropped == 5


def test_a_sink_that_cannot_be_opened():
    def no_sink():
        raise ImportError("no such exporter")

    outlet = Outlet("test", no_sink, interval_s=60)
    outlet.start()
    outlet.offer(summary())
    outlet.stop(10)
    assert outlet.dropped == 1


def test_a_sink_that_hangs_holds_up_neither_a_request_nor_the_stop():
    gate = threading.Event()
    sink = Sink(gate=gate)
    outlet = Outlet("test", lambda: sink, limit=3, interval_s=0.01)
    outlet.start()
    outlet.offer(summary())
    assert sink.entered.wait(30)
    for _ in range(10):
        outlet.offer(summary())
    assert outlet.dropped == 7
    outlet.stop(0.1)
    assert outlet.dropped == 11  # and the one that it hangs on
    gate.set()


def test_a_stop_before_the_start():
    outlet = Outlet("test", Sink)
    outlet.offer(summary())
    outlet.stop(1)
    assert outlet.dropped == 1


def test_losses_are_told_of(caplog: pytest.LogCaptureFixture):
    outlet = Outlet("test", lambda: Sink(fail=True), interval_s=60)
    outlet.start()
    outlet.offer(summary())
    outlet.stop(10)
    assert "refused" in caplog.text
