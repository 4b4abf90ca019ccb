import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.worker_metrics_aggregation import (
    MetricsAggregator,
    SharedWorkerMetrics,
    SlowThresholds,
    TickBuilder,
)
from tests.patience import patience
from tests.unit.telemetry.exchanges import make_exchange


def test_slow_is_relative_to_lately():
    metrics, slowness = RequestMetrics(), SlowThresholds()
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
    metrics, slowness = RequestMetrics(), SlowThresholds()
    for _ in range(50):
        metrics.observe(make_exchange(took_s=0.02), 200)
    slowness.update(metrics.all_series())
    assert metrics.all_series()[0].slow_s == float("inf")


def test_ticks_are_what_was_new():
    metrics, builder = RequestMetrics(), TickBuilder(5)
    metrics.observe(make_exchange(), 200)
    metrics.observe(make_exchange(), 500)
    (tick,) = builder.take_ticks(metrics.all_series(), 15)
    assert (tick.model, tick.requests, tick.failed, sum(tick.buckets)) == ("wine", 2, 1, 2)
    assert (tick.seconds, tick.at, tick.errors) == (5, 15, {"backend answered-5xx": 1})
    assert builder.take_ticks(metrics.all_series(), 20) == []
    metrics.observe(make_exchange(), 500)
    (tick,) = builder.take_ticks(metrics.all_series(), 25)
    assert (tick.requests, tick.failed, tick.errors) == (1, 1, {"backend answered-5xx": 1})


def test_ticks_end_by_the_clock(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1007.0)
    builder = TickBuilder(5)
    assert [builder.end_of_due_tick(now) for now in (1008.0, 1009.9, 1010.1, 1011.0, 1017.2)] == [
        None,
        None,
        1010,
        None,
        1015,
    ]


def test_workers_tell_each_other(tmp_path):
    first, second = RequestMetrics(), RequestMetrics()
    one, two = SharedWorkerMetrics(first, tmp_path, "1"), SharedWorkerMetrics(second, tmp_path, "2")
    first.observe(make_exchange(), 200)
    second.observe(make_exchange(), 200)
    one.write_own()
    two.write_own()
    for shared in (one, two):
        total = shared.total()
        assert total.series["wine"]["1"].statuses == {200: 2}
        assert total.gauges["chips_workers"] == {"": 2.0}


def test_a_worker_that_has_gone_still_counts_but_is_no_worker(tmp_path):
    gone = RequestMetrics()
    gone.observe(make_exchange(), 200)
    state = gone.live_state()
    state.at -= 60
    (tmp_path / "gone.state").write_bytes(msgspec.msgpack.encode(state))
    (tmp_path / "torn.state").write_bytes(b"\x93")
    total = SharedWorkerMetrics(RequestMetrics(), tmp_path, "here").total()
    assert total.series["wine"]["1"].statuses == {200: 1}
    assert total.gauges["chips_workers"] == {"": 1.0}


def write_state(folder, name, *, statuses=(200,)):
    """The file of a worker, as it left it."""
    metrics = RequestMetrics()
    for status in statuses:
        metrics.observe(make_exchange(), status)
    SharedWorkerMetrics(metrics, folder, name).write_own()


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def counted(shared):
    return shared.total().series["wine"]["1"].statuses


def test_the_files_of_workers_that_have_ended_become_one(tmp_path):
    shared = SharedWorkerMetrics(RequestMetrics(), tmp_path, f"host-{os.getpid()}")
    write_state(tmp_path, f"host-{os.getppid()}")  # one that runs
    for round_ in range(1, 4):
        write_state(tmp_path, f"host-{ended_process()}", statuses=(200, 500))
        (tmp_path / f"host-{ended_process()}.state").write_bytes(b"\x93")  # torn
        for _ in range(2):
            assert counted(shared) == {200: 1 + round_, 500: round_}
            shared.fold_ended_workers()
        assert counted(shared) == {200: 1 + round_, 500: round_}
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            ["ended.all", "fold.lock", f"host-{os.getppid()}.state"]
        )
    write_state(tmp_path, f"host-{os.getppid()}")  # gauges are only believed for seconds
    assert shared.total().gauges["chips_workers"] == {"": 2.0}


def test_a_worker_that_gets_the_process_id_of_another_is_counted(tmp_path):
    shared = SharedWorkerMetrics(RequestMetrics(), tmp_path, "here")
    name = f"host-{ended_process()}"
    for round_ in range(1, 4):
        write_state(tmp_path, name)
        assert counted(shared) == {200: round_}
        shared.fold_ended_workers()
        assert counted(shared) == {200: round_}


def test_nothing_counts_twice_where_folding_is_broken_off(tmp_path, monkeypatch):
    shared = SharedWorkerMetrics(RequestMetrics(), tmp_path, "here")
    write_state(tmp_path, f"host-{ended_process()}")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            shared.fold_ended_workers()
    assert len(list(tmp_path.glob("*.state"))) == 1
    assert counted(shared) == {200: 1}
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            shared.fold_ended_workers()
    write_state(tmp_path, f"host-{ended_process()}")
    assert counted(shared) == {200: 2}
    shared.fold_ended_workers()
    assert counted(shared) == {200: 2}
    assert list(tmp_path.glob("*.state")) == []


def test_one_folds_at_a_time_and_what_is_folded_meanwhile_is_counted_once(tmp_path, monkeypatch):
    shared, other = (
        SharedWorkerMetrics(RequestMetrics(), tmp_path, "here"),
        SharedWorkerMetrics(RequestMetrics(), tmp_path, "there"),
    )
    write_state(tmp_path, f"host-{ended_process()}")
    with (tmp_path / "fold.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shared.fold_ended_workers()
        assert len(list(tmp_path.glob("*.state"))) == 1
    glob = Path.glob

    def fold_first(self, pattern):
        monkeypatch.setattr(Path, "glob", glob)
        other.fold_ended_workers()
        return glob(self, pattern)

    monkeypatch.setattr(Path, "glob", fold_first)
    assert counted(shared) == {200: 1}


def test_a_pulse_folds(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.telemetry.worker_metrics_aggregation.INTERVAL_S", 0.001)
    write_state(tmp_path, f"host-{ended_process()}")
    metrics = RequestMetrics()
    pulse = MetricsAggregator(metrics, SharedWorkerMetrics(metrics, tmp_path, "here"), None)
    pulse.start()
    end = time.monotonic() + patience(30)
    while not (tmp_path / "ended.all").exists():
        assert time.monotonic() < end
        time.sleep(0.005)
    pulse.stop(timeout_s=patience(30))
    assert [path.name for path in tmp_path.glob("*.state")] == ["here.state"]
