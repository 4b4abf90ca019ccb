import msgspec

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.pulse import History, Shared, Slowness
from tests.unit.telemetry.exchanges import make_exchange


def test_slow_is_relative_to_lately():
    metrics, slowness = Metrics(), Slowness()
    for _ in range(300):
        metrics.observe(make_exchange(took_s=0.02), 200)
    slowness.update(metrics.all_series())
    (series,) = metrics.all_series()
    assert 0.015 < series.slow_s <= 0.025
    for _ in range(40):  # it becomes slower for good: that is the new normal before long
        for _ in range(300):
            metrics.observe(make_exchange(took_s=0.2), 200)
        slowness.update(metrics.all_series())
    assert 0.15 < series.slow_s <= 0.25


def test_a_few_requests_make_no_percentile():
    metrics, slowness = Metrics(), Slowness()
    for _ in range(50):
        metrics.observe(make_exchange(took_s=0.02), 200)
    slowness.update(metrics.all_series())
    assert metrics.all_series()[0].slow_s == float("inf")


def test_history_is_what_was_new():
    metrics, history = Metrics(), History()
    metrics.observe(make_exchange(), 200)
    metrics.observe(make_exchange(), 500)
    (tick,) = history.ticks(metrics.all_series(), 15)
    assert (tick.model, tick.requests, tick.failed, sum(tick.buckets)) == ("wine", 2, 1, 2)
    assert history.ticks(metrics.all_series(), 30) == []


def test_workers_tell_each_other(tmp_path):
    first, second = Metrics(), Metrics()
    one, two = Shared(first, tmp_path, "1"), Shared(second, tmp_path, "2")
    first.observe(make_exchange(), 200)
    second.observe(make_exchange(), 200)
    one.write()
    two.write()
    for shared in (one, two):
        total = shared.total()
        assert total.series["wine"]["1"].statuses == {200: 2}
        assert total.gauges["chips_workers"] == {"": 2.0}


def test_a_worker_that_has_gone_still_counts_but_is_no_worker(tmp_path):
    gone = Metrics()
    gone.observe(make_exchange(), 200)
    state = gone.state()
    state.at -= 60
    (tmp_path / "gone.state").write_bytes(msgspec.msgpack.encode(state))
    (tmp_path / "torn.state").write_bytes(b"\x93")
    total = Shared(Metrics(), tmp_path, "here").total()
    assert total.series["wine"]["1"].statuses == {200: 1}
    assert total.gauges["chips_workers"] == {"": 1.0}
